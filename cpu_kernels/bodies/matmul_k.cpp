// Matmul with weights of the K formats.
#include "cpu_kernels/bodies/matmul_ways.h"
#include "cpu_kernels/bodies/unpack_k.h"

namespace hearth::HEARTH_ISA {

template void matmul_blocks<TensorType::kQ2_K>(const MatmulParams&);
template void matmul_blocks<TensorType::kQ3_K>(const MatmulParams&);
template void matmul_blocks<TensorType::kQ4_K>(const MatmulParams&);
template void matmul_blocks<TensorType::kQ5_K>(const MatmulParams&);
template void matmul_blocks<TensorType::kQ6_K>(const MatmulParams&);

}  // namespace hearth::HEARTH_ISA
