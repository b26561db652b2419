#include "offload/vram/vram_slots.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace hearth {
namespace {

// What matrices begin at multiples of, and are read in.
int64_t rounded(int64_t bytes) { return (bytes + 15) / 16 * 16; }

ExpertSizes sizes_of(const LayerExperts& layer, int32_t experts) {
  ExpertSizes sizes;
  for (int p = 0; const Matrix& stack : expert_parts(layer.stacks)) {
    sizes[p++] = stack.rows / experts * row_bytes(stack.type, stack.cols);
  }
  return sizes;
}

}  // namespace

std::array<Matrix, kExpertParts> expert_parts(const ExpertWeights& weights) {
  return {weights.gate, weights.up, weights.down};
}

VramSlotGroups::VramSlotGroups(std::span<const LayerExperts> layers, int32_t experts,
                               std::span<const int32_t> slots_per_layer) {
  HEARTH_CHECK(slots_per_layer.size() == layers.size());
  for (size_t l = 0; l < layers.size(); ++l) {
    HEARTH_CHECK(slots_per_layer[l] >= 0 && slots_per_layer[l] <= experts);
    const ExpertSizes sizes = sizes_of(layers[l], experts);
    auto found = std::ranges::find(groups, sizes, &Group::sizes);
    if (found == groups.end()) {
      int64_t slot_bytes = 0;
      for (const int64_t bytes : sizes) slot_bytes += rounded(bytes);
      found = groups.insert(found, {sizes, slot_bytes, 0});
    }
    found->slots += slots_per_layer[l];
    of_layer.push_back(static_cast<int32_t>(found - groups.begin()));
  }
}

std::array<unsigned char*, kExpertParts> VramSlotGroups::Group::places(unsigned char* slot) const {
  std::array<unsigned char*, kExpertParts> places;
  for (int p = 0; p < kExpertParts; ++p) {
    places[p] = slot;
    slot += rounded(sizes[p]);
  }
  return places;
}

int64_t VramSlotGroups::bytes() const {
  int64_t sum = 0;
  for (const Group& group : groups) sum += group.slots * group.slot_bytes;
  return sum;
}

VramSlots::VramSlots(Device& device, VramSlotGroups groups, int64_t slab_bytes)
    : device_(device), groups_(std::move(groups)) {
  for (int32_t g = 0; g < this->groups(); ++g) {
    const VramSlotGroups::Group& group = groups_.groups[g];
    const auto most = static_cast<int32_t>(std::max<int64_t>(slab_bytes / group.slot_bytes, 1));
    for (int32_t left = group.slots; left > 0;) {
      const int32_t slots = std::min(left, most);
      const auto slab = static_cast<int32_t>(slabs_.size());
      slabs_.push_back({g, count(), slots, slots * group.slot_bytes, {}});
      slab_of_.insert(slab_of_.end(), slots, slab);
      take(slab);
      left -= slots;
    }
  }
}

std::array<unsigned char*, kExpertParts> VramSlots::places(int32_t slot) const {
  const Slab& slab = slabs_[slab_of_[slot]];
  HEARTH_CHECK(slab.memory.data() != nullptr);
  const VramSlotGroups::Group& group = groups_.groups[slab.group];
  return group.places(slab.memory.data() + (slot - slab.first) * group.slot_bytes);
}

void VramSlots::give_back(int32_t slab) {
  slabs_[slab].memory = {};
  bytes_ -= slabs_[slab].bytes;
}

void VramSlots::take(int32_t slab) {
  Slab& taken = slabs_[slab];
  try {
    taken.memory = device_.allocate(static_cast<size_t>(taken.bytes));
  } catch (const Error& error) {
    throw Error(error.what(), "the routed experts", "");
  }
  bytes_ += taken.bytes;
}

}  // namespace hearth
