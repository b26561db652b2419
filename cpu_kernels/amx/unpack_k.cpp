// Tiles of the K formats.
#include "cpu_kernels/bodies/unpack_k.h"
#include "cpu_kernels/amx/unpack_tiles.h"

namespace hearth::HEARTH_ISA {

template void unpack_tiles<TensorType::kQ2_K>(const Matrix&, int64_t, int64_t, int64_t, int,
                                              uint16_t*);
template void unpack_tiles<TensorType::kQ3_K>(const Matrix&, int64_t, int64_t, int64_t, int,
                                              uint16_t*);
template void unpack_tiles<TensorType::kQ4_K>(const Matrix&, int64_t, int64_t, int64_t, int,
                                              uint16_t*);
template void unpack_tiles<TensorType::kQ5_K>(const Matrix&, int64_t, int64_t, int64_t, int,
                                              uint16_t*);
template void unpack_tiles<TensorType::kQ6_K>(const Matrix&, int64_t, int64_t, int64_t, int,
                                              uint16_t*);

}  // namespace hearth::HEARTH_ISA
