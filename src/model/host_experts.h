// The routed experts that a device doesn't hold, computed by the CPU beside it.
//
// One thread owns the object. After construction nothing is allocated.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/limits.h"
#include "base/workers.h"
#include "cpu_kernels/kernels.h"
#include "model/config.h"
#include "model/routed_experts.h"
#include "offload/store/expert_store.h"

namespace hearth {

// A step of one layer, in memory of the host.
struct HostExpertWork {
  int64_t n;             // rows, at most as many as the object was made for
  const float* x;        // [n, dim] normed inputs
  const int32_t* picks;  // [n, experts_used]; negative: held by the device
  // Of these, computed on the device with weights of the store's, which lends them: those at hand
  // first.
  std::span<const int32_t> lent;
  const float* weights;  // [n, experts_used + 1]; the last one is not read
  bool prefill;          // as in MatmulParams
  float* y;  // [n, dim]: weighted sums in the order of the picks, 0 where there are none
};

class HostExperts {
 public:
  // The references must outlive the object; others may use the store between its layers.
  HostExperts(const ModelConfig& config, const Kernels& kernels, const Workers& workers,
              const Limits& limits, ExpertStore& store);

  // Asks the store for what a layer's work takes. What `work` points to must stay until it is done.
  void begin(int32_t layer, const HostExpertWork& work);
  // Does it. Adds its time and what it reads and computes to `totals`. Where an expert can't be
  // read the sums are not whole, and take_failure tells. `between`: called whenever some of the
  // experts are done.
  void run(StageTotals& totals, const std::function<void()>& between = nullptr);
  ExpertStore& store() { return store_; }
  int64_t bytes() const;  // of scratch memory

 private:
  void take_picks(const HostExpertWork& work);

  const ModelConfig& config_;
  int32_t layer_ = 0;
  HostExpertWork work_{};
  std::vector<uint8_t> is_lent_;  // [experts]
  Compute compute_;
  ActivationBuffer x_;     // [n, dim]
  ExpertScratch scratch_;  // picks of a row stand together, before its gaps
  ExpertStore& store_;
  std::vector<int32_t> picks_;   // [n, used], the same
  std::vector<float> weights_;   // [n, used + 1], the same
  std::vector<int32_t> counts_;  // [n] of the row's picks
};

// The bytes that the scratch memory takes.
int64_t host_expert_bytes(const ModelConfig& config, const Kernels& kernels, int64_t n);

}  // namespace hearth
