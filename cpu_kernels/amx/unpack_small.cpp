// Tiles of the formats with blocks of 32.
#include "cpu_kernels/amx/unpack_tiles.h"

namespace hearth::HEARTH_ISA {

template void unpack_tiles<TensorType::kMXFP4>(const Matrix&, int64_t, int64_t, int64_t, int,
                                               uint16_t*);
template void unpack_tiles<TensorType::kQ8_0>(const Matrix&, int64_t, int64_t, int64_t, int,
                                              uint16_t*);
template void unpack_tiles<TensorType::kQ4_0>(const Matrix&, int64_t, int64_t, int64_t, int,
                                              uint16_t*);
template void unpack_tiles<TensorType::kQ4_1>(const Matrix&, int64_t, int64_t, int64_t, int,
                                              uint16_t*);
template void unpack_tiles<TensorType::kQ5_0>(const Matrix&, int64_t, int64_t, int64_t, int,
                                              uint16_t*);
template void unpack_tiles<TensorType::kQ5_1>(const Matrix&, int64_t, int64_t, int64_t, int,
                                              uint16_t*);
template void unpack_tiles<TensorType::kIQ4_NL>(const Matrix&, int64_t, int64_t, int64_t, int,
                                                uint16_t*);

}  // namespace hearth::HEARTH_ISA
