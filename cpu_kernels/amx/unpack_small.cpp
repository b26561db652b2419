// Tiles of the formats with blocks of 32.
#include "cpu_kernels/amx/matmul_few.h"

namespace hearth::HEARTH_ISA {

template void unpack_tiles<TensorType::kMXFP4>(const TileRows&, int64_t, int, uint16_t*);
template void matmul_few<TensorType::kMXFP4>(const MatmulParams&);
template void unpack_tiles<TensorType::kQ8_0>(const TileRows&, int64_t, int, uint16_t*);
template void matmul_few<TensorType::kQ8_0>(const MatmulParams&);
template void unpack_tiles<TensorType::kQ4_0>(const TileRows&, int64_t, int, uint16_t*);
template void matmul_few<TensorType::kQ4_0>(const MatmulParams&);
template void unpack_tiles<TensorType::kQ4_1>(const TileRows&, int64_t, int, uint16_t*);
template void matmul_few<TensorType::kQ4_1>(const MatmulParams&);
template void unpack_tiles<TensorType::kQ5_0>(const TileRows&, int64_t, int, uint16_t*);
template void matmul_few<TensorType::kQ5_0>(const MatmulParams&);
template void unpack_tiles<TensorType::kQ5_1>(const TileRows&, int64_t, int, uint16_t*);
template void matmul_few<TensorType::kQ5_1>(const MatmulParams&);
template void unpack_tiles<TensorType::kIQ4_NL>(const TileRows&, int64_t, int, uint16_t*);
template void matmul_few<TensorType::kIQ4_NL>(const MatmulParams&);

}  // namespace hearth::HEARTH_ISA
