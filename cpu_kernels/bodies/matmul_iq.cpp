// Matmul with weights of the IQ formats in blocks of 256.
#include "cpu_kernels/bodies/matmul_ways.h"
#include "cpu_kernels/bodies/unpack_iq.h"

namespace hearth::HEARTH_ISA {

template void matmul_blocks<TensorType::kIQ4_XS>(const MatmulParams&);
template void matmul_blocks<TensorType::kIQ2_XXS>(const MatmulParams&);
template void matmul_blocks<TensorType::kIQ2_XS>(const MatmulParams&);
template void matmul_blocks<TensorType::kIQ2_S>(const MatmulParams&);
template void matmul_blocks<TensorType::kIQ3_XXS>(const MatmulParams&);
template void matmul_blocks<TensorType::kIQ3_S>(const MatmulParams&);

}  // namespace hearth::HEARTH_ISA
