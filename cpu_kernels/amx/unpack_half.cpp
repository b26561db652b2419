// Tiles of the floats of 16 bits.
#include "cpu_kernels/amx/matmul_few.h"

namespace hearth::HEARTH_ISA {

template void unpack_tiles<TensorType::kF16>(const TileRows&, int64_t, int, uint16_t*);
template void matmul_few<TensorType::kF16>(const MatmulParams&);
template void unpack_tiles<TensorType::kBF16>(const TileRows&, int64_t, int, uint16_t*);
template void matmul_few<TensorType::kBF16>(const MatmulParams&);

}  // namespace hearth::HEARTH_ISA
