// The GPU kernels: one table of functions, filled by CUDA and by the same sources on emulated
// threads. Every pointer is the device's, every function only enqueues on its stream. Rows are
// contiguous unless a stride is named.
//
// Plain data only, as kernels' sources include it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/tensor_type.h"

namespace hearth {

// What Stream::handle() of src/device gives. Null is CUDA's default stream; on emulated threads, at
// once.
using GpuStream = void*;

// Activation rows rounded to 8 bits, value = scale * code, scale = largest magnitude of 32 / 127.
// The same numbers as on the CPU.
struct GpuRoundedRows {
  int8_t* codes;  // [n, k]
  float* scales;  // [n, k / 32]
  float* sums;    // [n, k / 16]: scale * sum of the codes of each half block
};

struct GpuQuantizeParams {
  const float* x;  // [n, k], k a multiple of 32
  int64_t n;
  int64_t k;
  GpuRoundedRows out;
};

// y[y_rows[i], r] = w[r] . x[x_rows[i]]. Formats that read rounded activations on the CPU
// (reads_quantized) read `xq`, the others `x`. One result does not depend on n nor on the other
// rows. With `prefill` set, more than 8 tokens may be multiplied in bfloat16: reads_bfloat16s says
// whether, and then neither `x` nor `xq` is read.
struct GpuMatmulParams {
  Matrix w;               // [rows, k], as stored; of any alignment
  const float* x;         // [.., k]
  GpuRoundedRows xq;      // the same rows, rounded
  const int32_t* x_rows;  // [n] rows of x to read, or null for 0 .. n-1
  int64_t n;
  float* y;               // [.., y_stride]
  const int32_t* y_rows;  // [n] rows of y to write, or null for 0 .. n-1
  int64_t y_stride;
  const uint16_t* bfloat16s;  // [.., k] the rows of x as bfloat16, aligned to 16 bytes
  bool prefill;               // whether a result may depend on n
};

// out[i] = x[i] rounded to bfloat16.
struct GpuToBfloat16Params {
  const float* x;  // [count], aligned to 16 bytes like out
  int64_t count;
  uint16_t* out;  // [count]
};

// y = gain * x / sqrt(mean(x^2) + eps), row by row; y may be x.
struct GpuRmsNormParams {
  const float* x;     // [n, k]
  const float* gain;  // [k], or null for ones
  float eps;
  int64_t n;
  int64_t k;
  float* y;  // [n, k]
};

// Rotates the trailing `rope_dim` values of each head, pairs (2i, 2i + 1), in place.
struct GpuRopeParams {
  float* x;  // [n, heads, dim]
  int64_t n;
  int32_t heads;
  int32_t dim;
  int32_t rope_dim;
  const float* cosines;  // [n, rope_dim / 2]
  const float* sines;    // [n, rope_dim / 2]
  bool inverse;          // by the negative angle
};

// out = silu(min(gate, clamp)) * clamp(up, -clamp, clamp); out may be gate or up.
struct GpuSwigluParams {
  const float* gate;  // [count]
  const float* up;    // [count]
  float clamp;
  int64_t count;
  float* out;  // [count]
};

// out[i] = sum_t weights[i, t] * rows[i, t], t in order.
struct GpuWeightedSumParams {
  const float* rows;     // [n, terms, width]
  const float* weights;  // [n, terms]
  int64_t n;
  int32_t terms;
  int64_t width;
  float* out;  // [n, width]
};

struct GpuKernels {
  const char* name;  // "cuda" or "emulated"

  bool (*multiplies)(TensorType type);  // whether matmul knows weights of this type
  bool (*reads_bfloat16s)(const GpuMatmulParams& params);  // instead of x and xq
  void (*matmul)(const GpuMatmulParams& params, GpuStream stream);
  void (*to_bfloat16)(const GpuToBfloat16Params& params, GpuStream stream);
  void (*quantize)(const GpuQuantizeParams& params, GpuStream stream);
  void (*rms_norm)(const GpuRmsNormParams& params, GpuStream stream);
  void (*rope)(const GpuRopeParams& params, GpuStream stream);
  void (*swiglu)(const GpuSwigluParams& params, GpuStream stream);
  void (*weighted_sum)(const GpuWeightedSumParams& params, GpuStream stream);
};

}  // namespace hearth
