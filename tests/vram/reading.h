// Steps of a tier on the fake device, and work in them that looks at what the tables lead to.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <random>
#include <vector>

#include "device/device.h"
#include "gpu_kernels/emulation/stream.h"
#include "offload/vram/vram_tier.h"

namespace hearth::test {

using ExpertTables = std::array<GpuExpertMatrices, kExpertParts>;

inline ExpertTables tables_of(const VramTier& tier, int32_t layer) {
  return {tier.gate(layer), tier.up(layer), tier.down(layer)};
}

// Work of a step that looks through all tables, whenever the stream comes to it. `Source` has
// layers(), experts() and is_at(tables, layer, expert).
template <typename Source>
class Reading {
 public:
  Reading(const Source& source, const VramTier& tier) : source_(source), tier_(tier) {}

  void enqueue(const Stream& stream) {
    std::vector<char> held;
    for (int32_t l = 0; l < layers(); ++l) {
      for (int32_t e = 0; e < source_.experts(); ++e) held.push_back(tier_.holds(l, e));
    }
    static_cast<EmulatedStream*>(stream.handle())->enqueue([this, held] { look(held); });
  }
  int64_t steps() const { return steps_; }
  int64_t wrong() const { return wrong_; }

 private:
  int32_t layers() const { return static_cast<int32_t>(source_.layers().size()); }
  void look(const std::vector<char>& held) {
    ++steps_;
    for (int32_t l = 0; l < layers(); ++l) {
      const auto tables = tables_of(tier_, l);
      for (int32_t e = 0; e < source_.experts(); ++e) {
        const bool as_said =
            held[l * source_.experts() + e]
                ? source_.is_at(tables, l, e)
                : std::ranges::all_of(tables, [&](auto& one) { return one.data[e] == nullptr; });
        wrong_ += !as_said;
      }
    }
  }

  const Source& source_;
  const VramTier& tier_;
  int64_t steps_ = 0, wrong_ = 0;
};

// Two experts of four that are picked for a while.
inline std::vector<int32_t> picks_near(int32_t centre, int32_t experts, std::mt19937_64& random) {
  const auto first = static_cast<int32_t>(random() % 4);
  const auto second = static_cast<int32_t>((first + 1 + random() % 3) % 4);
  return {(centre + first) % experts, (centre + second) % experts};
}

}  // namespace hearth::test
