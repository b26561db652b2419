#include "cpu_kernels/kernels.h"
#include "model/device/step.h"

namespace hearth {

void round_rows_for(const DeviceStep& step, TensorType type, DeviceRows& x, int64_t n) {
  if (x.is_rounded || !reads_quantized(type)) return;
  step.kernels.quantize({.x = x.values, .n = n, .k = x.width, .out = x.rounded}, step.stream);
  x.is_rounded = true;
}

void multiply(const DeviceStep& step, const Matrix& w, DeviceRows& x, int64_t n, float* y,
              int64_t y_stride) {
  round_rows_for(step, w.type, x, n);
  step.kernels.matmul({.w = w,
                       .x = x.values,
                       .xq = x.rounded,
                       .x_rows = nullptr,
                       .n = n,
                       .y = y,
                       .y_rows = nullptr,
                       .y_stride = y_stride},
                      step.stream);
}

}  // namespace hearth
