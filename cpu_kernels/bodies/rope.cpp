// Rotary position embedding on the trailing dimensions, interleaved pairs.
#include "cpu_kernels/bodies/isa.h"

namespace hearth::HEARTH_ISA {

void rope(const RopeParams& p) {
  for (int32_t head = 0; head < p.heads; ++head) {
    float* pair = p.x + static_cast<int64_t>(head) * p.dim + (p.dim - p.rope_dim);
    for (int32_t i = 0; i < p.rope_dim / 2; ++i, pair += 2) {
      const float a = pair[0], b = pair[1];
      pair[0] = a * p.cosines[i] - b * p.sines[i];
      pair[1] = a * p.sines[i] + b * p.cosines[i];
    }
  }
}

}  // namespace hearth::HEARTH_ISA
