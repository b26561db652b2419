#include "model/device/vram_border.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/units.h"
#include "offload/vram/vram_slots.h"

namespace hearth {

int64_t VramBorder::taken() const {
  int64_t bytes = experts_.bytes();
  for (const DeviceCache* cache : caches_) bytes += cache->bytes();
  return bytes;
}

void VramBorder::make_room(int64_t bytes) {
  const int64_t lacking = taken() + bytes - bytes_;
  if (lacking <= 0 || forward_.give_back_experts(lacking) >= lacking) return;
  throw Error(fmt::format("{} of GPU memory are lacking", binary_size(taken() + bytes - bytes_)),
              "a session's cache",
              "Raise --gpu-budget, or choose a smaller context (--ctx) or fewer sessions");
}

void VramBorder::reach(DeviceCache& cache, int64_t tokens) {
  if (tokens <= cache.room()) return;
  make_room(cache.bytes_when_reached(tokens) - cache.bytes());
  for (;;) {
    try {
      return cache.reach(tokens);
    } catch (const Error&) {
      // The device has less than it had: experts still give way.
      if (forward_.give_back_experts(1) == 0) throw;
    }
  }
}

void VramBorder::refill() {
  try {
    experts_.grow(bytes_ - taken());
  } catch (const Error&) {
    // Another program has taken memory: fewer experts are held.
  }
}

std::vector<int32_t> with_lent_slots(std::span<const LayerExperts> layers, int32_t experts,
                                     std::vector<int32_t> counts, int64_t bytes) {
  const VramSlotGroups groups(layers, experts, counts);
  for (bool is_given = true; is_given;) {
    is_given = false;
    for (size_t l = 0; l < layers.size(); ++l) {
      const int64_t slot_bytes = groups.groups[groups.of_layer[l]].slot_bytes;
      const auto parts = expert_parts(layers[l].stacks);
      const bool is_there =
          std::ranges::none_of(parts, [](const Matrix& stack) { return stack.data == nullptr; });
      if (!is_there || counts[l] == experts || slot_bytes > bytes) continue;
      ++counts[l];
      bytes -= slot_bytes;
      is_given = true;
    }
  }
  return counts;
}

}  // namespace hearth
