#include "offload/plan/plan_svg.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/svg.h"
#include "base/units.h"

namespace hearth {
namespace {

constexpr double kMargin = 30, kWidth = 920, kTierTop = 105, kTierHeight = 34, kTierStep = 62;
constexpr double kTierLeft = 90, kTierWidth = kWidth - kTierLeft - kMargin;
constexpr double kLayerHeight = 9, kLayersLeft = 90;

constexpr const char* kDenseColour = "#4c4c9d";
constexpr const char* kVramColour = "#2a9d5c";
constexpr const char* kRamColour = "#e9a23b";
constexpr const char* kNvmeColour = "#b9b9c3";
constexpr const char* kKvColour = "#3f8fd2";
constexpr const char* kScratchColour = "#d97ba0";
constexpr const char* kRoomColour = "#f3d9ae";
constexpr const char* kOverColour = "#c0392b";
constexpr const char* kFaint = "#666666";

struct Part {
  const char* name;
  int64_t bytes;
  const char* colour;
};

// Below the tiers that anything lies in.
double layers_top(const Plan& plan) {
  int tiers = 0;
  for (const TierPlan* tier : {&plan.vram, &plan.ram, &plan.nvme}) tiers += tier->used > 0;
  return kTierTop + kTierStep * tiers + 29;
}

class Picture {
 public:
  explicit Picture(const Plan& plan)
      : plan_(plan),
        layers_top_(layers_top(plan)),
        svg_(kWidth, layers_top_ + kLayerHeight * static_cast<double>(plan.layers.size()) + 60,
             fmt::format("Placement of {} on {}", plan.model, plan.machine)) {}

  std::string draw() {
    heading();
    legend();
    double y = kTierTop;
    for (const auto& [name, tier, colour] :
         {std::tuple{"VRAM", &plan_.vram, kVramColour}, std::tuple{"RAM", &plan_.ram, kRamColour},
          std::tuple{"NVMe", &plan_.nvme, kNvmeColour}}) {
      if (tier->used == 0) continue;
      draw_tier(name, *tier, colour, y);
      y += kTierStep;
    }
    draw_layers();
    return svg_.finish();
  }

 private:
  void heading() {
    svg_.text(kMargin, 36, fmt::format("{} on {}", plan_.model, plan_.machine),
              {.size = 17, .bold = true});
    std::string line = fmt::format("{} tokens of context, {} session{}, {}", plan_.work.context,
                                   plan_.work.parallel, plan_.work.parallel == 1 ? "" : "s",
                                   plan_.shares().text());
    if (plan_.fits()) {
      line += fmt::format(
          ": decode {:.1f} tok/s, bound by {}; prefill {:.0f} tok/s", plan_.predict.decode_tok_s,
          resource_name(plan_.predict.decode.bottleneck()), plan_.predict.prefill_tok_s);
    } else {
      line += ": does not fit";
    }
    svg_.text(kMargin, 58, line, {.size = 13, .fill = kFaint});
  }

  void legend() {
    double x = kTierLeft;
    for (const auto& [name, colour] :
         {std::pair{"all but routed experts", kDenseColour},
          std::pair{"experts in VRAM", kVramColour}, std::pair{"in RAM", kRamColour},
          std::pair{"on NVMe", kNvmeColour}, std::pair{"KV cache", kKvColour},
          std::pair{"scratch", kScratchColour}, std::pair{"room for experts", kRoomColour}}) {
      svg_.rect(x, 72, 12, 12, {.fill = colour}, 2);
      svg_.text(x + 17, 82, name, {.size = 12});
      x += 34 + 6.6 * static_cast<double>(std::string_view(name).size());
    }
  }

  // The bar is as long as the budget, or where that is too small has it marked.
  void draw_tier(const char* name, const TierPlan& tier, const char* colour, double y) {
    const int64_t scale = std::max<int64_t>(std::max(tier.budget, tier.used), 1);
    const auto width = [&](int64_t bytes) {
      return kTierWidth * static_cast<double>(bytes) / static_cast<double>(scale);
    };
    const double experts = static_cast<double>(tier.experts) * expert_bytes();
    const auto expert_part = std::min(tier.weights, static_cast<int64_t>(experts));
    svg_.text(kMargin, y + 22, name, {.size = 14, .bold = true});
    svg_.rect(kTierLeft, y, kTierWidth, kTierHeight, {.fill = "#f4f4f6", .stroke = "#cccccc"}, 3);
    double x = kTierLeft;
    for (const Part& part :
         {Part{"all but routed experts", tier.weights - expert_part, kDenseColour},
          Part{"routed experts", expert_part, colour}, Part{"KV cache", tier.kv, kKvColour},
          Part{"scratch", tier.scratch - tier.expert_room(), kScratchColour},
          Part{"room for experts", tier.expert_room(), kRoomColour}}) {
      if (part.bytes <= 0) continue;
      svg_.rect(x, y, width(part.bytes), kTierHeight,
                {.fill = part.colour,
                 .tooltip = fmt::format("{}: {}", part.name, binary_size(part.bytes))});
      x += width(part.bytes);
    }
    const bool over = tier.used > tier.budget;
    if (over) {
      const double end = kTierLeft + width(tier.budget);
      svg_.line({end, y - 5}, {end, y + kTierHeight + 5},
                {.stroke = kOverColour,
                 .stroke_width = 3,
                 .tooltip = "budget: " + binary_size(tier.budget)});
    }
    const std::string budget = &tier == &plan_.nvme ? "" : " of " + binary_size(tier.budget);
    svg_.text(
        kTierLeft, y + kTierHeight + 15,
        fmt::format("{}{}, {} experts{}", binary_size(tier.used), budget, tier.experts,
                    over ? "; " + binary_size(tier.used - tier.budget) + " past the budget" : ""),
        {.size = 12, .fill = over ? kOverColour : kFaint});
  }

  double expert_bytes() const {
    const int64_t count = plan_.vram.experts + plan_.ram.experts + plan_.nvme.experts;
    return static_cast<double>(plan_.routed_bytes) /
           static_cast<double>(std::max<int64_t>(count, 1));
  }

  void draw_layers() {
    svg_.text(kMargin, layers_top_ - 14, "Layers, and where their experts lie",
              {.size = 14, .bold = true});
    const double full = kWidth - kLayersLeft - kMargin;
    for (size_t i = 0; i < plan_.layers.size(); ++i) {
      const LayerPlan& layer = plan_.layers[i];
      const double y = layers_top_ + kLayerHeight * static_cast<double>(i);
      const int64_t all = layer.vram_experts + layer.ram_experts + layer.nvme_experts;
      if (i % 5 == 0) {
        svg_.text(kLayersLeft - 24, y + 8, fmt::format("{}", i),
                  {.size = 10, .anchor = SvgAnchor::kEnd, .fill = kFaint});
      }
      svg_.rect(kLayersLeft - 16, y, 10, kLayerHeight - 2,
                {.fill = layer.dense_in_vram ? kVramColour : kRamColour,
                 .tooltip = layer.dense_in_vram ? "attention and shared expert in VRAM"
                                                : "attention and shared expert in RAM"});
      double x = kLayersLeft;
      for (const auto& [count, colour, place] :
           {std::tuple{layer.vram_experts, kVramColour, "in VRAM"},
            std::tuple{layer.ram_experts, kRamColour, "in RAM"},
            std::tuple{layer.nvme_experts, kNvmeColour, "on NVMe"}}) {
        if (count == 0) continue;
        const double width = full * count / static_cast<double>(std::max<int64_t>(all, 1));
        svg_.rect(x, y, width, kLayerHeight - 2,
                  {.fill = colour,
                   .tooltip = fmt::format("layer {}: {} of {} experts {}", i, count, all, place)});
        x += width;
      }
    }
    const double end = layers_top_ + kLayerHeight * static_cast<double>(plan_.layers.size());
    svg_.text(kLayersLeft - 16, end + 18,
              "the small square: attention and shared expert; the bar: routed experts",
              {.size = 11, .fill = kFaint});
  }

  const Plan& plan_;
  const double layers_top_;
  Svg svg_;
};

}  // namespace

std::string plan_svg(const Plan& plan) { return Picture(plan).draw(); }

}  // namespace hearth
