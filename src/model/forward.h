// The forward pass: rows of tokens in, logits out. Reads like the paper: embed, then per layer
// hyper-connection, attention, hyper-connection, experts; then the head.
//
// One thread owns a Forward; it uses the workers inside each step. After construction nothing is
// allocated. Experts may come from a cache, which then reads them while others are computed. The
// first layers may also be run by themselves, where a device goes on from there.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "base/limits.h"
#include "base/workers.h"
#include "cpu_kernels/kernels.h"
#include "model/config.h"
#include "model/kv_cache.h"
#include "model/stages.h"
#include "model/weights.h"
#include "offload/store/expert_store.h"

namespace hearth {

// The next tokens of one sequence.
struct Segment {
  KvCache* cache;
  std::span<const int32_t> tokens;
};

// Residual streams of a batch's rows, [n, streams, dim], the rows `stride` floats apart.
struct StreamRows {
  const float* values;
  int64_t stride;
};

enum class LogitRows { kNone, kLast, kAll };  // of each segment

// Sees intermediate results; for tests and traces.
class ForwardObserver {
 public:
  virtual ~ForwardObserver() = default;
  // After the embedding (layer -1) and after each block: h [n, streams, dim], rows `stride` floats
  // apart.
  virtual void streams(int32_t layer, const float* h, int64_t stride, int64_t n) = 0;
  // picks [n, experts_used], best first.
  virtual void picks(int32_t layer, const int32_t* picks, int64_t n) = 0;
};

class Forward {
 public:
  // `context` bounds the position of any token. The references must outlive the object.
  Forward(const ModelConfig& config, const ModelWeights& weights, const Kernels& kernels,
          const Workers& workers, int64_t context, const Limits& limits,
          std::unique_ptr<ExpertCache> cache = nullptr);
  // With experts out of a store that others use too, between this one's runs.
  Forward(const ModelConfig& config, const ModelWeights& weights, const Kernels& kernels,
          const Workers& workers, int64_t context, const Limits& limits, ExpertStore& store);
  ~Forward();

  int32_t chunk_tokens() const;

  // Runs one to chunk_tokens() tokens in all, of distinct sequences, and advances their caches. A
  // row's result does not depend on the other rows. The logits [rows wanted, vocab], segment after
  // segment, are valid until the next call; there may be Limits::logit_rows of them. Each segment
  // must fit its cache's context, and tokens be below the vocabulary size.
  // `on_layer` is called after each layer with the number done; where it returns false the run ends
  // there without logits, and the segments' caches must be set back to the start. The same where an
  // expert can't be read; take_failure then tells.
  std::span<const float> run(std::span<const Segment> segments, LogitRows wanted,
                             ForwardObserver* observer = nullptr,
                             const std::function<bool(int32_t)>& on_layer = nullptr);

  // The same of so many layers, the first ones, without a head: the streams that they leave, valid
  // until the next call; nothing where it ends early. Only these layers' weights are read, and the
  // caches need not have others.
  std::optional<StreamRows> run_layers(std::span<const Segment> segments, int32_t layers,
                                       ForwardObserver* observer = nullptr,
                                       const std::function<bool(int32_t)>& on_layer = nullptr);

  std::optional<ReadFailure> take_failure();
  ExpertCache* cache();  // of experts that are read as they are wanted; null where all are held
  // Share of the experts guessed for a layer by the one before that were right; 0 where none were
  // guessed.
  double guess_precision(int32_t layer) const;

  StageClock& clock();
  int64_t scratch_bytes() const;  // activations, whether touched or not

 private:
  class Pass;
  std::unique_ptr<ExpertStore> own_store_;  // null where another one is used
  std::unique_ptr<Pass> pass_;
};

}  // namespace hearth
