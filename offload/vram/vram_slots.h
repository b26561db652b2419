// Memory of a device for routed experts: slots with room for the three matrices of one expert. All
// layers whose experts have the same sizes share a group of slots. Slots lie in slabs, which can be
// given back to the device one by one and taken again.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "device/device.h"
#include "offload/store/expert_weights.h"

namespace hearth {

// An expert's gate, up and down matrices.
constexpr int kExpertParts = 3;
std::array<Matrix, kExpertParts> expert_parts(const ExpertWeights& weights);

// Bytes of one expert's matrices, as stored.
using ExpertSizes = std::array<int64_t, kExpertParts>;

// Slots by group, before any memory is taken.
struct VramSlotGroups {
  struct Group {
    ExpertSizes sizes;
    int64_t slot_bytes;
    int32_t slots;

    // Where the matrices lie in a slot that begins there.
    std::array<unsigned char*, kExpertParts> places(unsigned char* slot) const;
  };
  // `slots_per_layer` [layers]: what each layer adds to its group, 0 to `experts`.
  VramSlotGroups(std::span<const LayerExperts> layers, int32_t experts,
                 std::span<const int32_t> slots_per_layer);
  int64_t bytes() const;

  std::vector<Group> groups;
  std::vector<int32_t> of_layer;  // [layers]
};

class VramSlots {
 public:
  // Slabs hold as many slots as `slab_bytes` allow, one at least. Throws Error where the memory
  // does not fit.
  VramSlots(Device& device, VramSlotGroups groups, int64_t slab_bytes);

  int64_t bytes() const { return bytes_; }  // now taken
  int32_t groups() const { return static_cast<int32_t>(groups_.groups.size()); }
  int32_t group_of_layer(int32_t layer) const { return groups_.of_layer[layer]; }
  const ExpertSizes& sizes(int32_t layer) const {
    return groups_.groups[group_of_layer(layer)].sizes;
  }
  int32_t count() const { return static_cast<int32_t>(slab_of_.size()); }
  int32_t group_of_slot(int32_t slot) const { return slabs_[slab_of_[slot]].group; }
  // Where an expert's matrices go; not for slots of a slab that is given back.
  std::array<unsigned char*, kExpertParts> places(int32_t slot) const;

  // Slots follow each other: first to first + slots - 1 are the slab's.
  struct Slab {
    int32_t group;
    int32_t first;
    int32_t slots;
    int64_t bytes;
    DeviceBuffer memory;  // empty where it is given back
  };
  std::span<const Slab> slabs() const { return slabs_; }
  // The device must be done with the slab's memory.
  void give_back(int32_t slab);
  // Takes memory for the slab again. Throws Error where it does not fit.
  void take(int32_t slab);

 private:
  Device& device_;
  const VramSlotGroups groups_;
  std::vector<Slab> slabs_;
  std::vector<int32_t> slab_of_;  // [slots]
  int64_t bytes_ = 0;
};

}  // namespace hearth
