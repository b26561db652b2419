// The functions of the AVX-512 table, which the tile table shares for all that tiles are no good
// for. As documented in kernels.h.
#pragma once

#include "cpu_kernels/kernels.h"

namespace hearth::avx512 {

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

}  // namespace hearth::avx512
