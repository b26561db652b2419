#include "offload/plan/gpu_rates.h"

#include <algorithm>
#include <cmath>

namespace hearth {
namespace {

// A product of several hundred MB, by what probing the memory reads.
constexpr double kReadShare = 0.85;
// From one kernel's start to the next one's in the tables, beside its work.
constexpr double kKernelSeconds = 4e-6;

// Bytes of weights a processor and cycle, from all rows of a format but the head's: their bytes by
// their times less kKernelSeconds each, 132 processors at 1.98 GHz. A format without rows has those
// of one that is unpacked alike.
constexpr double kBytesIq2 = 2.92, kBytesQ3 = 4.41, kBytesQ2 = 4.43, kBytesMxfp4 = 5.00,
                 kBytesQ4 = 6.02, kBytesF8 = 6.81, kBytesQ5 = 7.36, kBytesQ6 = 8.10,
                 kBytesFloat = 10.7, kBytesQ8 = 11.7;

double bytes_a_cycle(TensorType type) {
  switch (type) {
    case TensorType::kQ8_0:
      return kBytesQ8;
    case TensorType::kQ6_K:
      return kBytesQ6;
    case TensorType::kQ5_K:
    case TensorType::kQ5_0:
    case TensorType::kQ5_1:
      return kBytesQ5;
    case TensorType::kQ4_K:
    case TensorType::kQ4_0:
    case TensorType::kQ4_1:
      return kBytesQ4;
    case TensorType::kMXFP4:
    case TensorType::kIQ4_NL:
    case TensorType::kIQ4_XS:
      return kBytesMxfp4;
    case TensorType::kF8_E4M3:
      return kBytesF8;
    case TensorType::kQ3_K:
      return kBytesQ3;
    case TensorType::kQ2_K:
      return kBytesQ2;
    case TensorType::kIQ2_XXS:
    case TensorType::kIQ2_XS:
    case TensorType::kIQ2_S:
    case TensorType::kIQ3_XXS:
    case TensorType::kIQ3_S:
      return kBytesIq2;
    case TensorType::kF32:
    case TensorType::kF16:
    case TensorType::kBF16:
    case TensorType::kI32:
      break;
  }
  return kBytesFloat;
}

// Tiles of tokens that products are made in (gpu_kernels/matmul/many.h), and their shares of the
// tensor cores with all of a tile in use: of wide ones the mean of three formats with 512 tokens,
// of narrow ones experts' gate and up with 12 and 48 tokens each.
constexpr double kFewTokens = 8, kNarrowTile = 32, kWideTile = 128;
constexpr double kNarrowShare = 0.115, kWideShare = 0.32;
// Up to so many tokens an expert takes narrow tiles.
constexpr double kNarrowExpertTokens = 64;

// Of one token: both kernels of attention, then operations a processor and cycle.
constexpr double kAttentionSeconds = 15e-6;
constexpr double kAttentionFlopsACycle = 32, kIndexFlopsACycle = 98;
// Index scores that one processor looks through a cycle for the best.
constexpr double kScoresACycle = 0.46;

// Of many tokens, by the tensor cores; index scores of prompts have no row and go by attention to
// what they choose.
double attention_share(int32_t ratio) {
  constexpr double kWindow = 0.127, kCsa = 0.197, kHca = 0.221;
  return ratio == 0 ? kWindow : ratio == 4 ? kCsa : kHca;
}

// Kernels of src/model/device of a layer with neither compressed rows nor an index, attention's two
// left out; what each of both adds; those before and after all layers.
constexpr double kLayerKernels = 23, kEntryKernels = 2, kIndexKernels = 3, kHeadKernels = 8;
// What these take beyond their start: entering hyper-connections, routing.
constexpr double kEnterSeconds = 3e-6, kRouteSeconds = 8e-6;

}  // namespace

double GpuRates::cycles(double count) const { return count / (gpu_.clock_ghz * 1e9); }

double GpuRates::pass(double bytes) const { return bytes / (gpu_.read_gb_s * 1e9 * kReadShare); }

// Steps of few tokens are launched as a graph, prompts kernel by kernel.
double GpuRates::kernel(bool prompt) const {
  return prompt ? std::max(kKernelSeconds, gpu_.launch_us * 1e-6) : kKernelSeconds;
}

BoundSeconds GpuRates::multiply_few(const std::vector<MatrixUse>& uses, double tokens) const {
  BoundSeconds seconds;
  for (const MatrixUse& use : uses) {
    const auto bytes = static_cast<double>(use.bytes);
    const double reading = pass(bytes);
    const double unpacking = cycles(bytes / bytes_a_cycle(use.type)) / gpu_.processors;
    const double computing = matmul_flops(static_cast<double>(use.weights), tokens) /
                             (gpu_.matmul_gflop_s * 1e9 * kNarrowShare);
    const double busy = std::max(unpacking, computing);
    (reading >= busy ? seconds.memory : seconds.arithmetic) += std::max(reading, busy);
  }
  return seconds;
}

BoundSeconds GpuRates::multiply_tiles(const std::vector<MatrixUse>& uses, double tokens,
                                      double share) const {
  BoundSeconds seconds;
  for (const MatrixUse& use : uses) {
    const double reading = pass(static_cast<double>(use.bytes));
    const double computing = matmul_flops(static_cast<double>(use.weights), tokens) /
                             (gpu_.matmul_gflop_s * 1e9 * share);
    (reading >= computing ? seconds.memory : seconds.arithmetic) += std::max(reading, computing);
  }
  return seconds;
}

BoundSeconds GpuRates::multiply_prompt(const std::vector<MatrixUse>& uses, double tokens,
                                       double narrow_most, double in_narrow, double in_wide) const {
  if (tokens > narrow_most) return multiply_tiles(uses, in_wide, kWideShare);
  const BoundSeconds tiles = multiply_tiles(uses, in_narrow, kNarrowShare);
  if (tokens > kFewTokens) return tiles;
  // Between one token and narrow tiles there is no row.
  const BoundSeconds one = multiply_few(uses, 1);
  const double way = std::max(tokens - 1, 0.0) / (kFewTokens - 1);
  return {one.memory + way * (tiles.memory - one.memory),
          one.arithmetic + way * (tiles.arithmetic - one.arithmetic)};
}

BoundSeconds GpuRates::multiply(const std::vector<MatrixUse>& uses, double tokens,
                                bool prompt) const {
  if (!prompt) return multiply_few(uses, tokens);
  const auto whole = [&](double tile) { return std::ceil(tokens / tile) * tile; };
  return multiply_prompt(uses, tokens, kNarrowTile, whole(kNarrowTile), whole(kWideTile));
}

// Of an expert's last tile half is in use, on average.
BoundSeconds GpuRates::multiply_experts(const std::vector<MatrixUse>& uses, double tokens,
                                        bool prompt) const {
  if (!prompt) return multiply_few(uses, tokens);
  const auto whole = [&](double tile) { return std::max(tokens + tile / 2, tile); };
  return multiply_prompt(uses, tokens, kNarrowExpertTokens, whole(kNarrowTile), whole(kWideTile));
}

double GpuRates::attend(const AttentionWork& work, bool prompt) const {
  double seconds = 0;
  if (prompt) {
    const double peak = gpu_.matmul_gflop_s * 1e9;
    seconds = 2 * kernel(prompt) + work.attention_flops / (peak * attention_share(work.ratio)) +
              work.index_flops / (peak * attention_share(4));
  } else {
    seconds = kAttentionSeconds +
              cycles(work.attention_flops / kAttentionFlopsACycle) / gpu_.processors +
              cycles(work.index_flops / kIndexFlopsACycle) / gpu_.processors;
  }
  if (work.ratio == 4) seconds += kernel(prompt);
  if (work.index_flops == 0) return seconds;
  // Each token's are one processor's.
  const double rounds = std::max(work.tokens / gpu_.processors, 1.0);
  return seconds + kernel(prompt) + cycles(work.scores / work.tokens / kScoresACycle) * rounds;
}

double GpuRates::layer_kernels(int32_t ratio, bool prompt) const {
  const double count =
      kLayerKernels + (ratio > 0 ? kEntryKernels : 0) + (ratio == 4 ? kIndexKernels : 0);
  return count * kernel(prompt) + 2 * kEnterSeconds + kRouteSeconds;
}

double GpuRates::head_kernels(bool prompt) const {
  return kHeadKernels * kernel(prompt) + kEnterSeconds;
}

}  // namespace hearth
