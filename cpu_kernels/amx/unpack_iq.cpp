// Tiles of the IQ formats with blocks of 256.
#include "cpu_kernels/bodies/unpack_iq.h"
#include "cpu_kernels/amx/matmul_few.h"

namespace hearth::HEARTH_ISA {

template void unpack_tiles<TensorType::kIQ4_XS>(const TileRows&, int64_t, int, uint16_t*);
template void matmul_few<TensorType::kIQ4_XS>(const MatmulParams&);
template void unpack_tiles<TensorType::kIQ2_XXS>(const TileRows&, int64_t, int, uint16_t*);
template void matmul_few<TensorType::kIQ2_XXS>(const MatmulParams&);
template void unpack_tiles<TensorType::kIQ2_XS>(const TileRows&, int64_t, int, uint16_t*);
template void matmul_few<TensorType::kIQ2_XS>(const MatmulParams&);
template void unpack_tiles<TensorType::kIQ2_S>(const TileRows&, int64_t, int, uint16_t*);
template void matmul_few<TensorType::kIQ2_S>(const MatmulParams&);
template void unpack_tiles<TensorType::kIQ3_XXS>(const TileRows&, int64_t, int, uint16_t*);
template void matmul_few<TensorType::kIQ3_XXS>(const MatmulParams&);
template void unpack_tiles<TensorType::kIQ3_S>(const TileRows&, int64_t, int, uint16_t*);
template void matmul_few<TensorType::kIQ3_S>(const MatmulParams&);

}  // namespace hearth::HEARTH_ISA
