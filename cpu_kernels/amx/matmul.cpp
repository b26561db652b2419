// Matmul in tiles: of bytes for batches that decode (matmul_bytes.cpp), of bfloat16 for many tokens
// of a prefill. There weights of 16 bits or fewer are unpacked to tiles in scratch that stays in
// the caches, and multiplied with the tokens' bfloat16 rows, sums in float32. Tiles want one side
// of a product transposed: the tokens where they are few, else the weights.
#include "cpu_kernels/bodies/matmul.h"

#include "base/check.h"
#include "cpu_kernels/amx/avx512.h"
#include "cpu_kernels/amx/tile_tokens.h"
#include "cpu_kernels/amx/weight_tiles.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int64_t kFewTokensMax = 192;  // for more, unpacking once pays
constexpr int64_t kBatchMin = 5;        // sequences that decode together
constexpr int64_t kBatchMax = 64;       // for more, weights are read out of the caches too often

// The two ways of a format, null where tiles are not used for it.
struct Ways {
  void (*few)(const MatmulParams&) = nullptr;
  Unpack unpack = nullptr;
};

template <TensorType type>
constexpr Ways kWays = {matmul_few<type>, unpack_tiles<type>};

Ways ways_of(TensorType type) {
  switch (type) {
    case TensorType::kQ4_0:
      return kWays<TensorType::kQ4_0>;
    case TensorType::kQ4_1:
      return kWays<TensorType::kQ4_1>;
    case TensorType::kQ5_0:
      return kWays<TensorType::kQ5_0>;
    case TensorType::kQ5_1:
      return kWays<TensorType::kQ5_1>;
    case TensorType::kQ8_0:
      return kWays<TensorType::kQ8_0>;
    case TensorType::kQ2_K:
      return kWays<TensorType::kQ2_K>;
    case TensorType::kQ3_K:
      return kWays<TensorType::kQ3_K>;
    case TensorType::kQ4_K:
      return kWays<TensorType::kQ4_K>;
    case TensorType::kQ5_K:
      return kWays<TensorType::kQ5_K>;
    case TensorType::kQ6_K:
      return kWays<TensorType::kQ6_K>;
    case TensorType::kIQ2_XXS:
      return kWays<TensorType::kIQ2_XXS>;
    case TensorType::kIQ2_XS:
      return kWays<TensorType::kIQ2_XS>;
    case TensorType::kIQ2_S:
      return kWays<TensorType::kIQ2_S>;
    case TensorType::kIQ3_XXS:
      return kWays<TensorType::kIQ3_XXS>;
    case TensorType::kIQ3_S:
      return kWays<TensorType::kIQ3_S>;
    case TensorType::kIQ4_NL:
      return kWays<TensorType::kIQ4_NL>;
    case TensorType::kIQ4_XS:
      return kWays<TensorType::kIQ4_XS>;
    case TensorType::kMXFP4:
      return kWays<TensorType::kMXFP4>;
    case TensorType::kF16:
      return kWays<TensorType::kF16>;
    case TensorType::kBF16:
      return kWays<TensorType::kBF16>;
    case TensorType::kF32:
    case TensorType::kF8_E4M3:
    case TensorType::kI32:
      break;
  }
  return {};
}

}  // namespace

void matmul(const MatmulParams& p) {
  if (!p.prefill && p.w.type == TensorType::kQ8_0 && p.n >= kBatchMin && p.n <= kBatchMax) {
    return matmul_bytes(p);
  }
  const bool fits = p.prefill && p.w.cols % kTileColumns == 0;
  const Ways ways = fits ? ways_of(p.w.type) : Ways{};
  if (ways.few == nullptr || p.n < tile_tokens_min(p.w.type)) return avx512::matmul(p);
  HEARTH_CHECK(!p.w.interleaved ||
               (p.row_begin % kInterleavedRows == 0 && p.row_end % kInterleavedRows == 0));
  if (p.n <= kFewTokensMax) return ways.few(p);
  matmul_many(p, ways.unpack);
}

}  // namespace hearth::HEARTH_ISA
