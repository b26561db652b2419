// What every kernel body shares: the table's functions inside the namespace of the instruction set
// that the file is compiled for (HEARTH_ISA: avx2 or avx512; amx and amx_emulated for the files of
// amx/), and that set's float vector.
//
// Bodies are the only files with -m flags. All they define stays inside this namespace: code shared
// under one name with the rest of the program could be the copy the linker keeps for machines
// without those instructions.
#pragma once

#include <cstdint>
#include <xsimd/xsimd.hpp>

#include "cpu_kernels/kernels.h"

namespace hearth::HEARTH_ISA {

#ifdef __AVX512F__
using Arch = xsimd::avx512bw;
constexpr bool kReadsInterleaved = true;
#else
using Arch = xsimd::fma3<xsimd::avx2>;
constexpr bool kReadsInterleaved = false;
#endif
using FloatVec = xsimd::batch<float, Arch>;

// As documented in kernels.h.
void quantize(const float* x, int64_t n, int64_t k, RoundedRows out);
void matmul(const MatmulParams& params);
void rms_norm(const float* x, const float* gain, float eps, int64_t n, int64_t k, float* y);
void rope(const RopeParams& params);
void store_kv(const float* x, int64_t n, KvType type, void* out);
void attention(const AttentionParams& params);
void index_scores(const IndexScoreParams& params);
void compress(const CompressParams& params);
void swiglu(const float* gate, const float* up, float clamp, int64_t n, float* out);
void weighted_sum(const float* rows, int64_t stride, const float* weights, int32_t n_rows,
                  int64_t width, float* out);
float softmax_terms(const float* x, float largest, float scale, int64_t n, float* out);
uint64_t read_bytes(const void* data, int64_t bytes);
int64_t multiply_registers(int64_t rounds);

}  // namespace hearth::HEARTH_ISA
