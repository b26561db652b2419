// Tiles of the IQ formats with blocks of 256.
#include "cpu_kernels/bodies/unpack_iq.h"
#include "cpu_kernels/amx/unpack_tiles.h"

namespace hearth::HEARTH_ISA {

template void unpack_tiles<TensorType::kIQ4_XS>(const Matrix&, int64_t, int64_t, int64_t, int,
                                                uint16_t*);
template void unpack_tiles<TensorType::kIQ2_XXS>(const Matrix&, int64_t, int64_t, int64_t, int,
                                                 uint16_t*);
template void unpack_tiles<TensorType::kIQ2_XS>(const Matrix&, int64_t, int64_t, int64_t, int,
                                                uint16_t*);
template void unpack_tiles<TensorType::kIQ2_S>(const Matrix&, int64_t, int64_t, int64_t, int,
                                               uint16_t*);
template void unpack_tiles<TensorType::kIQ3_XXS>(const Matrix&, int64_t, int64_t, int64_t, int,
                                                 uint16_t*);
template void unpack_tiles<TensorType::kIQ3_S>(const Matrix&, int64_t, int64_t, int64_t, int,
                                               uint16_t*);

}  // namespace hearth::HEARTH_ISA
