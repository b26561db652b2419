// The vendor's matrix product, to compare with. The library is looked for when the program runs, so
// that the other tables do without it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "gpu_kernels/gpu_kernels.h"

namespace hearth::bench {

class Cublas {
 public:
  virtual ~Cublas() = default;

  // y[i, r] = w[r] . x[i] with sums in float32; w [rows, k] and x [n, k] are bfloat16. Only
  // enqueues.
  virtual void matmul(const void* w, const void* x, float* y, int64_t rows, int64_t k,
                      int64_t n) = 0;
};

// Works in that stream of the current device.
struct FoundCublas {
  std::unique_ptr<Cublas> cublas;
  std::string why_not;
};
FoundCublas open_cublas(GpuStream stream);

}  // namespace hearth::bench
