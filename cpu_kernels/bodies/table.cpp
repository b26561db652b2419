// This instruction set's row of the registry.
#include "cpu_kernels/bodies/isa.h"

#define HEARTH_QUOTE_TOKEN(token) #token
#define HEARTH_QUOTE(macro) HEARTH_QUOTE_TOKEN(macro)

namespace hearth::HEARTH_ISA {

extern const Kernels kKernels;
const Kernels kKernels = {
    .name = HEARTH_QUOTE(HEARTH_ISA),
    .reads_bfloat16 = false,
    .reads_interleaved = kReadsInterleaved,
    .quantize = quantize,
    .matmul = matmul,
    .rms_norm = rms_norm,
    .rope = rope,
    .store_kv = store_kv,
    .attention = attention,
    .index_scores = index_scores,
    .compress = compress,
    .swiglu = swiglu,
    .weighted_sum = weighted_sum,
    .softmax_terms = softmax_terms,
    .read_bytes = read_bytes,
    .multiply_registers = multiply_registers,
};

}  // namespace hearth::HEARTH_ISA
