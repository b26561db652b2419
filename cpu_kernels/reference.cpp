// The table that runs everywhere and defines what the others must compute: plain loops, sums in
// double precision, no code shared with the bodies.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "cpu_kernels/kernels.h"
#include "format/dequantize.h"

namespace hearth::reference {
namespace {

// Below this 127 / largest is not finite; such blocks count as zero.
constexpr float kLeastMagnitude = 1e-36f;

void quantize_block(const float* x, int8_t* codes, float* scale, float* sums) {
  float largest = 0;
  for (int i = 0; i < kQuantBlock; ++i) largest = std::max(largest, std::fabs(x[i]));
  if (largest < kLeastMagnitude) largest = 0;
  const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
  *scale = largest / 127.0f;
  int half_sums[2] = {};
  for (int i = 0; i < kQuantBlock; ++i) {
    codes[i] = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
    half_sums[i / kQuantHalf] += codes[i];
  }
  for (int half = 0; half < 2; ++half) sums[half] = *scale * static_cast<float>(half_sums[half]);
}

void quantize(const float* x, int64_t n, int64_t k, RoundedRows out) {
  for (int64_t b = 0; b < n * k / kQuantBlock; ++b) {
    quantize_block(x + b * kQuantBlock, out.codes + b * kQuantBlock, out.scales + b,
                   out.sums + 2 * b);
  }
}

// Activation j of row `row` as the weights' type reads it.
double activation(const MatmulParams& p, bool quantized, int64_t row, int64_t j) {
  const int64_t at = row * p.w.cols + j;
  if (!quantized) return p.x[at];
  return static_cast<double>(p.xq.scales[at / kQuantBlock]) * p.xq.codes[at];
}

void matmul(const MatmulParams& p) {
  HEARTH_CHECK(!p.w.interleaved);
  const bool quantized = reads_quantized(p.w.type);
  const int64_t bytes = row_bytes(p.w.type, p.w.cols);
  std::vector<float> weights(p.w.cols);
  for (int64_t r = p.row_begin; r < p.row_end; ++r) {
    dequantize(p.w.type, p.w.data + r * bytes, p.w.cols, weights.data());
    for (int64_t i = 0; i < p.n; ++i) {
      const int64_t row = p.x_rows != nullptr ? p.x_rows[i] : i;
      const int64_t y_row = p.y_rows != nullptr ? p.y_rows[i] : i;
      double sum = 0;
      for (int64_t j = 0; j < p.w.cols; ++j) sum += weights[j] * activation(p, quantized, row, j);
      p.y[y_row * p.y_stride + r] = static_cast<float>(sum);
    }
  }
}

void rms_norm(const float* x, const float* gain, float eps, int64_t n, int64_t k, float* y) {
  for (int64_t row = 0; row < n; ++row, x += k, y += k) {
    double sum = 0;
    for (int64_t i = 0; i < k; ++i) sum += static_cast<double>(x[i]) * x[i];
    const double factor = 1 / std::sqrt(sum / static_cast<double>(k) + eps);
    for (int64_t i = 0; i < k; ++i) {
      y[i] = static_cast<float>(x[i] * factor * (gain != nullptr ? gain[i] : 1.0f));
    }
  }
}

void rope(const RopeParams& p) {
  for (int32_t head = 0; head < p.heads; ++head) {
    float* x = p.x + static_cast<int64_t>(head) * p.dim + (p.dim - p.rope_dim);
    for (int32_t i = 0; i < p.rope_dim / 2; ++i) {
      const double a = x[2 * i], b = x[2 * i + 1];
      x[2 * i] = static_cast<float>(a * p.cosines[i] - b * p.sines[i]);
      x[2 * i + 1] = static_cast<float>(a * p.sines[i] + b * p.cosines[i]);
    }
  }
}

void store_kv(const float* x, int64_t n, KvType type, void* out) {
  if (type == KvType::kF32) {
    std::memcpy(out, x, n * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < n; ++i) static_cast<uint16_t*>(out)[i] = float_to_bfloat16(x[i]);
}

float kv_value(const void* row, KvType type, int64_t i) {
  if (type == KvType::kF32) return static_cast<const float*>(row)[i];
  return bfloat16_to_float(static_cast<const uint16_t*>(row)[i]);
}

void attend_head(const AttentionParams& p, int32_t head) {
  const float* q = p.q + static_cast<int64_t>(head) * p.dim;
  std::vector<double> weights(p.n_rows);
  double largest = p.sinks[head];
  for (int32_t r = 0; r < p.n_rows; ++r) {
    double score = 0;
    for (int32_t d = 0; d < p.dim; ++d) {
      score += static_cast<double>(q[d]) * kv_value(p.rows[r], p.kv_type, d);
    }
    weights[r] = score * p.scale;
    largest = std::max(largest, weights[r]);
  }
  double total = std::exp(p.sinks[head] - largest);
  for (double& weight : weights) total += weight = std::exp(weight - largest);
  for (int32_t d = 0; d < p.dim; ++d) {
    double sum = 0;
    for (int32_t r = 0; r < p.n_rows; ++r) sum += weights[r] * kv_value(p.rows[r], p.kv_type, d);
    p.out[static_cast<int64_t>(head) * p.dim + d] = static_cast<float>(sum / total);
  }
}

void attention(const AttentionParams& p) {
  for (int32_t head = p.head_begin; head < p.head_end; ++head) attend_head(p, head);
}

void index_scores(const IndexScoreParams& p) {
  for (int64_t e = p.key_begin; e < p.key_end; ++e) {
    double score = 0;
    for (int32_t h = 0; h < p.heads; ++h) {
      double dot = 0;
      for (int32_t d = 0; d < p.dim; ++d) {
        dot += static_cast<double>(p.q[static_cast<int64_t>(d) * p.heads + h]) *
               kv_value(p.keys, p.kv_type, e * p.dim + d);
      }
      score += p.head_weights[h] * std::max(dot, 0.0);
    }
    p.scores[e] = static_cast<float>(score);
  }
}

void compress(const CompressParams& p) {
  std::vector<double> gates(p.n);
  for (int32_t c = 0; c < p.width; ++c) {
    for (int32_t j = 0; j < p.n; ++j)
      gates[j] = static_cast<double>(p.gates[j][c]) + p.biases[j][c];
    const double largest = *std::max_element(gates.begin(), gates.end());
    double total = 0, mixed = 0;
    for (int32_t j = 0; j < p.n; ++j) {
      const double weight = std::exp(gates[j] - largest);
      total += weight;
      mixed += weight * p.values[j][c];
    }
    p.out[c] = static_cast<float>(mixed / total);
  }
}

void swiglu(const float* gate, const float* up, float clamp, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) {
    const double g = std::min(gate[i], clamp);
    const double u = std::clamp(up[i], -clamp, clamp);
    out[i] = static_cast<float>(g / (1 + std::exp(-g)) * u);
  }
}

void weighted_sum(const float* rows, int64_t stride, const float* weights, int32_t n_rows,
                  int64_t width, float* out) {
  for (int64_t i = 0; i < width; ++i) {
    double sum = 0;
    for (int32_t r = 0; r < n_rows; ++r) {
      sum += static_cast<double>(weights[r]) * rows[r * stride + i];
    }
    out[i] = static_cast<float>(sum);
  }
}

float softmax_terms(const float* x, float largest, float scale, int64_t n, float* out) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    out[i] = static_cast<float>(std::exp((static_cast<double>(x[i]) - largest) * scale));
    sum += out[i];
  }
  return static_cast<float>(sum);
}

uint64_t read_bytes(const void* data, int64_t bytes) {
  const unsigned char* p = static_cast<const unsigned char*>(data);
  uint64_t result = 0, word;
  int64_t i = 0;
  for (; i + 8 <= bytes; i += 8) {
    std::memcpy(&word, p + i, sizeof(word));
    result ^= word;
  }
  for (; i < bytes; ++i) result ^= p[i];
  return result;
}

int64_t multiply_registers(int64_t rounds) {
  constexpr int kChains = 8;
  double sums[kChains] = {};
  double factor = 0.5;
  for (int64_t round = 0; round < rounds; ++round) {
    asm volatile("" : "+x"(factor));
    for (double& sum : sums) sum = sum * factor + factor;
  }
  for (double& sum : sums) asm volatile("" : : "x"(sum));
  return rounds * kChains * 2;
}

}  // namespace

extern const Kernels kKernels;
const Kernels kKernels = {
    .name = "reference",
    .reads_bfloat16 = false,
    .reads_interleaved = false,
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

}  // namespace hearth::reference
