// What one sequence remembers: per layer a ring of raw rows, the compressed rows that grow with the
// context, and the unfinished windows the compressors carry between calls. Sized once from the
// context; memory that isn't committed before is by the operating system as rows are written.
#pragma once

#include <cstdint>
#include <vector>

#include "base/buffer.h"
#include "base/limits.h"
#include "base/workers.h"
#include "cpu_kernels/kernels.h"
#include "model/config.h"

namespace hearth {

int64_t kv_value_bytes(KvType type);

// The compressed rows of one compressor and its carried state.
struct CompressedCache {
  int32_t ratio = 0;  // tokens an entry covers
  int32_t width = 0;  // values a row
  int32_t lanes = 0;  // values a projected token has: width, or 2 width where windows overlap
  int32_t carry_slots =
      0;         // tokens the carry holds: the window, and the one before where windows overlap
  Buffer rows;   // [capacity, width] of the cache's KvType
  Buffer carry;  // [carry_slots, 2, lanes] float32: value and gate of token t in slot t mod
                 // carry_slots

  const unsigned char* row(int64_t entry, KvType type) const {
    return rows.data() + entry * width * kv_value_bytes(type);
  }
  float* carried_value(int64_t position) const {
    return carry.as<float>() + position % carry_slots * 2 * lanes;
  }
  float* carried_gate(int64_t position) const { return carried_value(position) + lanes; }
};

struct LayerCache {
  int32_t window_slots = 0;
  Buffer window;            // [window_slots, head_dim]: position p in slot p mod window_slots
  CompressedCache entries;  // CSA and HCA layers
  CompressedCache index;    // CSA layers
};

class KvCache {
 public:
  // Of all layers. Throws Error where the address space for `context` tokens is refused.
  KvCache(const ModelConfig& config, KvType type, int64_t context, const Limits& limits)
      : KvCache(config, type, context, limits, config.layers) {}
  // Of so many, the first ones.
  KvCache(const ModelConfig& config, KvType type, int64_t context, const Limits& limits,
          int32_t layers);

  // Has the system clear what the first `tokens` tokens write now, not while they run.
  void commit(const Workers& workers, int64_t tokens);

  KvType type() const { return type_; }
  int64_t context() const { return context_; }
  int64_t bytes() const;  // all rows and carried state, filled or not
  LayerCache& layer(int32_t index) { return layers_[index]; }
  unsigned char* window_row(const LayerCache& cache, int64_t token_position) const {
    return cache.window.data() + token_position % cache.window_slots * window_row_bytes_;
  }

  int64_t position =
      0;  // tokens seen; 0 forgets everything, since rows are written before they are read

 private:
  KvType type_;
  int64_t context_;
  int64_t window_row_bytes_;
  std::vector<LayerCache> layers_;
};

}  // namespace hearth
