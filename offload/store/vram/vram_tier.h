// The VRAM tier: which routed experts lie in the memory of a GPU.
//
// One thread owns a tier.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "device/device.h"
#include "offload/store/expert_weights.h"

namespace hearth {

// A layer's routed experts as the kernels read them: null for those that lie elsewhere. The arrays
// of pointers stay where they are.
struct DeviceExperts {
  GpuExpertMatrices gate;
  GpuExpertMatrices up;
  GpuExpertMatrices down;
};

class VramTier {
 public:
  // `held` experts of each layer, the first ones, are copied from the host's memory; the stacks of
  // layers that hold none may have no data. Throws Error where they do not fit.
  VramTier(Device& device, std::vector<LayerExperts> layers, int32_t experts,
           std::span<const int32_t> held);

  const DeviceExperts& experts(int32_t layer) const { return layers_[layer]; }
  bool holds(int32_t layer, int32_t expert) const noexcept { return expert < held_[layer]; }
  bool holds_all(int32_t layer) const noexcept { return held_[layer] == experts_; }
  int64_t bytes() const { return static_cast<int64_t>(memory_.bytes()); }

 private:
  const int32_t experts_;
  const std::vector<int32_t> held_;
  DeviceBuffer memory_;
  std::vector<DeviceExperts> layers_;
};

// The bytes that a VramTier allocates.
int64_t vram_tier_bytes(const std::vector<LayerExperts>& layers, int32_t experts,
                        std::span<const int32_t> held);

}  // namespace hearth
