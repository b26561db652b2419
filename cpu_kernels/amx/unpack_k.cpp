// Tiles of the K formats.
#include "cpu_kernels/bodies/unpack_k.h"
#include "cpu_kernels/amx/matmul_few.h"

namespace hearth::HEARTH_ISA {

template void unpack_tiles<TensorType::kQ2_K>(const TileRows&, int64_t, int, uint16_t*);
template void matmul_few<TensorType::kQ2_K>(const MatmulParams&);
template void unpack_tiles<TensorType::kQ3_K>(const TileRows&, int64_t, int, uint16_t*);
template void matmul_few<TensorType::kQ3_K>(const MatmulParams&);
template void unpack_tiles<TensorType::kQ4_K>(const TileRows&, int64_t, int, uint16_t*);
template void matmul_few<TensorType::kQ4_K>(const MatmulParams&);
template void unpack_tiles<TensorType::kQ5_K>(const TileRows&, int64_t, int, uint16_t*);
template void matmul_few<TensorType::kQ5_K>(const MatmulParams&);
template void unpack_tiles<TensorType::kQ6_K>(const TileRows&, int64_t, int, uint16_t*);
template void matmul_few<TensorType::kQ6_K>(const MatmulParams&);

}  // namespace hearth::HEARTH_ISA
