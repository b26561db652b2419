// Matmul with weights in blocks of 32.
#include "cpu_kernels/bodies/matmul_ways.h"

namespace hearth::HEARTH_ISA {

template void matmul_blocks<TensorType::kMXFP4>(const MatmulParams&);
template void matmul_blocks<TensorType::kQ8_0>(const MatmulParams&);
template void matmul_blocks<TensorType::kQ4_0>(const MatmulParams&);
template void matmul_blocks<TensorType::kQ4_1>(const MatmulParams&);
template void matmul_blocks<TensorType::kQ5_0>(const MatmulParams&);
template void matmul_blocks<TensorType::kQ5_1>(const MatmulParams&);
template void matmul_blocks<TensorType::kIQ4_NL>(const MatmulParams&);

}  // namespace hearth::HEARTH_ISA
