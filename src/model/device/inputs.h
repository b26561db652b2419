// What a step is told: its rows, their tokens' embeddings and where their sequences' caches lie.
// One copy brings it all to the device. Where the host computes the first layers, what these leave
// comes in place of embeddings, in a copy of its own.
#pragma once

#include <cstdint>
#include <span>

#include "base/limits.h"
#include "device/device.h"
#include "model/config.h"
#include "model/device/cache.h"
#include "model/forward.h"

namespace hearth {

// The next tokens of one sequence.
struct DeviceSegment {
  DeviceCache* cache;
  std::span<const int32_t> tokens;
};

// What the device's pointers of a step point to has been enqueued, not more.
struct DeviceBatch {
  int64_t n = 0;          // rows: those of all segments, one after the other
  int64_t sequences = 0;  // one a segment
  int64_t run_max = 0;    // tokens of the longest segment
  int64_t wanted = 0;     // rows whose logits are wanted
  bool prefill = false;
  int64_t index_entries = 0;  // CSA entries that a row of the batch may see, rounded up to a power
                              // of two so that most steps have the number of the one before
  KvType kv_type = KvType::kBF16;

  const GpuRow* rows = nullptr;              // [n]
  const int32_t* tokens = nullptr;           // [n]
  Matrix embeddings{};                       // [n, dim] rows of the table, as it stores them; no
                                             // rows where streams come instead
  const int32_t* wanted_rows = nullptr;      // [wanted]
  const GpuSequenceCache* caches = nullptr;  // [layers, sequences]
  std::span<const GpuRow> host_rows;         // the same rows, on the host
};

class StepInputs {
 public:
  // The embedding table stays in the memory of the host; without columns, streams come instead.
  StepInputs(Device& device, const ModelConfig& config, const Matrix& embedding,
             const Limits& limits);

  // One to chunk_tokens tokens in all, of distinct sequences, of which there may be as many as
  // there may be rows with logits. Valid until the next call.
  const DeviceBatch& upload(std::span<const DeviceSegment> segments, LogitRows wanted,
                            const Stream& stream);
  // After upload: the rows' streams, to `to` [n, streams, dim] on the device.
  void bring_streams(const StreamRows& streams, float* to, const Stream& stream);

  int64_t bytes() const { return static_cast<int64_t>(memory_.bytes()); }  // on the device
  int64_t pinned_bytes() const { return static_cast<int64_t>(staging_.bytes() + streams_.bytes()); }

 private:
  Device& device_;
  const int32_t layers_;
  const Matrix embedding_;
  const int64_t streams_width_;
  const int64_t rows_max_;  // with logits, and sequences
  PinnedBuffer staging_;
  PinnedBuffer streams_;  // [chunk_tokens, streams_width], where such come
  DeviceBuffer memory_;
  Event copied_;
  DeviceBatch batch_;
};

// The bytes that StepInputs allocates on the device, and pinned in the host's memory.
int64_t step_input_bytes(const ModelConfig& config, const Matrix& embedding, const Limits& limits);
int64_t step_input_pinned_bytes(const ModelConfig& config, const Matrix& embedding,
                                const Limits& limits);

}  // namespace hearth
