#include "offload/sim/expert_tiers.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace hearth {

std::vector<Tier> planned_tiers(const Plan& plan, int32_t experts,
                                std::span<const double> popularity) {
  std::vector<Tier> tiers(plan.layers.size() * experts, Tier::kDisk);
  HEARTH_CHECK(popularity.empty() || popularity.size() == tiers.size());
  std::vector<int32_t> order(experts);
  for (size_t l = 0; l < plan.layers.size(); ++l) {
    const LayerPlan& layer = plan.layers[l];
    const auto first = static_cast<int32_t>(l) * experts;
    std::iota(order.begin(), order.end(), first);
    for (size_t i = 0; i < layer.order.size(); ++i) order[i] = first + layer.order[i];
    if (!popularity.empty()) {
      std::ranges::stable_sort(order, std::greater(), [&](int32_t key) { return popularity[key]; });
    }
    const int32_t in_memory = layer.vram_experts + layer.ram_experts;
    for (int32_t i = 0; i < in_memory; ++i) {
      tiers[order[i]] = i < layer.vram_experts ? Tier::kVram : Tier::kRam;
    }
  }
  return tiers;
}

ExpertTiers::ExpertTiers(CacheShape shape, std::vector<Tier> start,
                         std::unique_ptr<CachePolicy> vram, std::unique_ptr<CachePolicy> ram)
    : tiers_(std::move(start)), vram_(std::move(vram)), ram_(std::move(ram)) {
  HEARTH_CHECK(std::ssize(tiers_) == shape.pairs());
  HEARTH_CHECK((vram_ == nullptr) == (ram_ == nullptr));
  if (vram_ == nullptr) return;
  for (int32_t key = 0; key < shape.pairs(); ++key) {
    if (tiers_[key] == Tier::kVram) vram_->add(key);
    if (tiers_[key] == Tier::kRam) ram_->add(key);
  }
}

void ExpertTiers::use(int32_t layer, bool on_gpu, std::span<const int32_t> keys,
                      std::vector<Tier>& found, std::vector<int32_t>& entered) {
  found.clear();
  entered.clear();
  for (const int32_t key : keys) found.push_back(tiers_[key]);
  if (vram_ == nullptr) return;
  vram_->begin_step(layer);
  ram_->begin_step(layer);
  for (const int32_t key : keys) {
    vram_->touch(key);
    ram_->touch(key);
    if (tiers_[key] == Tier::kVram) vram_->remove(key);
    if (tiers_[key] == Tier::kRam) ram_->remove(key);
  }
  for (const int32_t key : keys) {
    if (tiers_[key] == Tier::kVram) continue;
    if (on_gpu && enter_vram(key)) {
      entered.push_back(key);
    } else if (tiers_[key] == Tier::kDisk) {
      enter_ram(key);
    }
  }
  for (const int32_t key : keys) {
    if (tiers_[key] == Tier::kVram) vram_->add(key);
    if (tiers_[key] == Tier::kRam) ram_->add(key);
  }
}

bool ExpertTiers::enter_vram(int32_t key) {
  const int32_t out = vram_->victim();
  if (out < 0) return false;
  tiers_[out] = Tier::kDisk;
  if (tiers_[key] == Tier::kRam) {
    tiers_[out] = Tier::kRam;
  } else {
    enter_ram(out);
  }
  if (tiers_[out] == Tier::kRam) ram_->add(out);
  tiers_[key] = Tier::kVram;
  return true;
}

// It stays on disk where all that RAM holds is in use.
void ExpertTiers::enter_ram(int32_t key) {
  const int32_t out = ram_->victim();
  if (out < 0) return;
  tiers_[out] = Tier::kDisk;
  tiers_[key] = Tier::kRam;
}

}  // namespace hearth
