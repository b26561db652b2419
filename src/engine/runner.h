// What an engine runs a model with: the CPU alone, or a GPU with the CPU beside it. The engine does
// not know which it has.
//
// One thread owns a Runner and its Sequences; a Runner outlives them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/limits.h"
#include "base/workers.h"
#include "device/device.h"
#include "model/device/cache.h"
#include "model/device/link_split.h"
#include "model/forward.h"
#include "model/logit_row.h"
#include "model/stages.h"
#include "model/weights.h"

namespace hearth {

// What one timeline of tokens remembers.
class Sequence {
 public:
  virtual ~Sequence() = default;
  virtual int64_t context() const = 0;
  virtual int64_t bytes() const = 0;  // KV rows and carried state, filled or not
  virtual void clear() = 0;           // forgets everything
};

// The next tokens of one sequence.
struct SequenceFeed {
  Sequence* sequence;
  std::span<const int32_t> tokens;
};

class Runner {
 public:
  virtual ~Runner() = default;
  // Throws Error where it does not fit.
  virtual std::unique_ptr<Sequence> new_sequence(int64_t context) = 0;
  // As Forward::run: where it ends early, the sequences must be cleared.
  virtual std::span<const float> run(std::span<const SequenceFeed> feeds, LogitRows wanted,
                                     ForwardObserver* observer,
                                     const std::function<bool(int32_t)>& on_layer) = 0;
  // The same of one feed, with the logits of its last token for a sampler, wherever they lie; null
  // where it ends early. Valid until the next run.
  virtual LogitRow* run_to_row(const SequenceFeed& feed,
                               const std::function<bool(int32_t)>& on_layer) = 0;
  virtual std::optional<ReadFailure> take_failure() = 0;
  virtual ExpertCache* cache() = 0;  // null where no experts are read as they are wanted
  // Before the first run of a runner with a cache: reads the experts that a GPU holds at first, and
  // those that are to be in the cache, keys as of ExpertCache. `on_load` is called with bytes that
  // are there and in all, of each of the two. The first read that failed; then no run may follow.
  virtual std::optional<ReadFailure> load_experts(
      std::span<const int32_t> in_cache, const std::function<void(int64_t, int64_t)>& on_load) = 0;
  virtual double guess_precision(int32_t layer) const = 0;  // as of Forward
  virtual StageClock& clock() = 0;
  // Whether steps also take the time of stages on a GPU; they are slower then. A runner without a
  // GPU always has all times.
  virtual void set_timing(bool on) = 0;
  // Of the picks in layers that a GPU holds a part of; 1 where there is none.
  virtual double vram_hit_rate() const = 0;
  // The clock, and what the rates of hits are of.
  virtual void clear_figures() = 0;
  virtual int64_t scratch_bytes() const = 0;  // of the host
};

// What runners have in common. The references must outlive them.
struct RunnerParts {
  const ModelConfig& config;
  const ModelWeights& weights;
  const Kernels& kernels;
  const Workers& workers;
  KvType kv;
  int64_t context;
  Limits limits;
};

std::unique_ptr<Runner> make_host_runner(const RunnerParts& parts,
                                         std::unique_ptr<ExpertCache> cache);

// A cache of experts beside a device, and its slots pinned; both may be empty.
struct PinnedCache {
  std::unique_ptr<ExpertCache> cache;
  PinnedRange slots;
};

// What VRAM has: the layers from the first one on, with these routed experts at first.
struct VramShare {
  int32_t first_layer = 0;
  std::vector<int32_t> counts;  // [layers] beside whole caches
  std::vector<int32_t> order;   // [layers * experts] each layer's first ones are there
  EntriesIn entries = EntriesIn::kDevice;
  int32_t sessions = 1;     // that are counted with
  int64_t spare_bytes = 0;  // of the budget
};

// On a device, which must outlive the runner, its share of layers and routed experts. The CPU
// computes the layers before them and, of theirs, the other experts, or sends those by these rates.
// Where there are such, caches that are yet to grow leave their memory to more experts. Throws
// Error where it does not fit.
std::unique_ptr<Runner> make_device_runner(const RunnerParts& parts, Device& device,
                                           const VramShare& share, const LinkRates& rates,
                                           PinnedCache cache);

}  // namespace hearth
