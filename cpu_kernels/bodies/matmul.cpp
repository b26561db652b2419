// Matmul: the type of the weights picks the code.
#include "cpu_kernels/bodies/matmul.h"

#include "base/check.h"

namespace hearth::HEARTH_ISA {

void matmul(const MatmulParams& p) {
  if (p.w.interleaved) return matmul_interleaved(p);
  switch (p.w.type) {
    case TensorType::kF32:
      return matmul_plain<TensorType::kF32>(p);
    case TensorType::kF16:
      return matmul_plain<TensorType::kF16>(p);
    case TensorType::kBF16:
      return matmul_plain<TensorType::kBF16>(p);
    case TensorType::kF8_E4M3:
      return matmul_f8(p);
    case TensorType::kQ4_0:
      return matmul_blocks<TensorType::kQ4_0>(p);
    case TensorType::kQ4_1:
      return matmul_blocks<TensorType::kQ4_1>(p);
    case TensorType::kQ5_0:
      return matmul_blocks<TensorType::kQ5_0>(p);
    case TensorType::kQ5_1:
      return matmul_blocks<TensorType::kQ5_1>(p);
    case TensorType::kQ8_0:
      return matmul_blocks<TensorType::kQ8_0>(p);
    case TensorType::kQ2_K:
      return matmul_blocks<TensorType::kQ2_K>(p);
    case TensorType::kQ3_K:
      return matmul_blocks<TensorType::kQ3_K>(p);
    case TensorType::kQ4_K:
      return matmul_blocks<TensorType::kQ4_K>(p);
    case TensorType::kQ5_K:
      return matmul_blocks<TensorType::kQ5_K>(p);
    case TensorType::kQ6_K:
      return matmul_blocks<TensorType::kQ6_K>(p);
    case TensorType::kIQ2_XXS:
      return matmul_blocks<TensorType::kIQ2_XXS>(p);
    case TensorType::kIQ2_XS:
      return matmul_blocks<TensorType::kIQ2_XS>(p);
    case TensorType::kIQ2_S:
      return matmul_blocks<TensorType::kIQ2_S>(p);
    case TensorType::kIQ3_XXS:
      return matmul_blocks<TensorType::kIQ3_XXS>(p);
    case TensorType::kIQ3_S:
      return matmul_blocks<TensorType::kIQ3_S>(p);
    case TensorType::kIQ4_NL:
      return matmul_blocks<TensorType::kIQ4_NL>(p);
    case TensorType::kIQ4_XS:
      return matmul_blocks<TensorType::kIQ4_XS>(p);
    case TensorType::kMXFP4:
      return matmul_blocks<TensorType::kMXFP4>(p);
    case TensorType::kI32:
      break;
  }
  HEARTH_CHECK(!"a type of weights that can be multiplied");
}

}  // namespace hearth::HEARTH_ISA
