// A compressed cache entry: one softmax per channel over the window's rows.
#include "cpu_kernels/bodies/isa.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int32_t kLanes = FloatVec::size;

// Channels c .. c + lanes of the entry. The largest gate is taken out first, so that exp cannot
// overflow.
FloatVec mix_channels(const CompressParams& p, int32_t c) {
  auto gate = [&](int32_t j) {
    return FloatVec::load_unaligned(p.gates[j] + c) + FloatVec::load_unaligned(p.biases[j] + c);
  };
  FloatVec largest = gate(0);
  for (int32_t j = 1; j < p.n; ++j) largest = xsimd::max(largest, gate(j));
  FloatVec total(0.0f), mixed(0.0f);
  for (int32_t j = 0; j < p.n; ++j) {
    const FloatVec weight = xsimd::exp(gate(j) - largest);
    total += weight;
    mixed = xsimd::fma(weight, FloatVec::load_unaligned(p.values[j] + c), mixed);
  }
  return mixed / total;
}

float mix_channel(const CompressParams& p, int32_t c) {
  float largest = p.gates[0][c] + p.biases[0][c];
  for (int32_t j = 1; j < p.n; ++j) {
    const float gate = p.gates[j][c] + p.biases[j][c];
    largest = gate > largest ? gate : largest;
  }
  float total = 0, mixed = 0;
  for (int32_t j = 0; j < p.n; ++j) {
    const float weight = __builtin_expf(p.gates[j][c] + p.biases[j][c] - largest);
    total += weight;
    mixed += weight * p.values[j][c];
  }
  return mixed / total;
}

}  // namespace

void compress(const CompressParams& p) {
  int32_t c = 0;
  for (; c + kLanes <= p.width; c += kLanes) mix_channels(p, c).store_unaligned(p.out + c);
  for (; c < p.width; ++c) p.out[c] = mix_channel(p, c);
}

}  // namespace hearth::HEARTH_ISA
