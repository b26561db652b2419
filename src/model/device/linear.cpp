#include "cpu_kernels/kernels.h"
#include "model/device/step.h"

namespace hearth {

void convert_rows(const DeviceStep& step, DeviceRows& x, int64_t n) {
  if (x.is_converted) return;
  step.kernels.to_bfloat16({.x = x.values, .count = n * x.width, .out = x.bfloat16s}, step.stream);
  x.is_converted = true;
}

void round_rows_for(const DeviceStep& step, TensorType type, DeviceRows& x, int64_t n) {
  if (x.is_rounded || !reads_quantized(type)) return;
  step.kernels.quantize({.x = x.values, .n = n, .k = x.width, .out = x.rounded}, step.stream);
  x.is_rounded = true;
}

void multiply(const DeviceStep& step, const DeviceProduct& product, DeviceRows& x,
              int64_t x_count) {
  GpuMatmulParams params{.w = product.w,
                         .x = x.values,
                         .xq = x.rounded,
                         .x_rows = product.x_rows,
                         .n = product.n,
                         .y = product.y,
                         .y_rows = product.y_rows,
                         .y_stride = product.y_stride,
                         .bfloat16s = x.bfloat16s,
                         .prefill = step.batch.prefill && x.bfloat16s != nullptr};
  if (step.kernels.reads_bfloat16s(params)) {
    convert_rows(step, x, x_count);
  } else {
    round_rows_for(step, product.w.type, x, x_count);
  }
  step.kernels.matmul(params, step.stream);
}

void multiply(const DeviceStep& step, const Matrix& w, DeviceRows& x, int64_t n, float* y,
              int64_t y_stride) {
  multiply(step, {.w = w, .n = n, .y = y, .y_stride = y_stride}, x, n);
}

}  // namespace hearth
