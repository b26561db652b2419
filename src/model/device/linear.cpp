#include <algorithm>
#include <array>

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

namespace {

GpuMatmulParams params_of(const DeviceStep& step, const DeviceProduct& product,
                          const DeviceRows& x) {
  return {.w = product.w,
          .x = x.values,
          .xq = x.rounded,
          .x_rows = product.x_rows,
          .n = product.n,
          .y = product.y,
          .y_rows = product.y_rows,
          .y_stride = product.y_stride,
          .bfloat16s = x.bfloat16s,
          .prefill = step.batch.prefill && x.bfloat16s != nullptr};
}

void launch_products(const DeviceStep& step, std::span<const GpuMatmulParams> products,
                     DeviceRows& x, int64_t x_count) {
  if (products.empty()) return;
  if (step.kernels.reads_bfloat16s(products.front())) {
    convert_rows(step, x, x_count);
  } else {
    round_rows_for(step, products.front().w.type, x, x_count);
  }
  step.kernels.matmuls(products.data(), static_cast<int32_t>(products.size()), step.stream);
}

}  // namespace

void multiply_all(const DeviceStep& step, std::span<const DeviceProduct> products, DeviceRows& x,
                  int64_t x_count) {
  for (const DeviceProduct& product : products) {
    count_product(step.meter.totals(), product.w.type, product.w.rows, product.w.cols, product.n);
  }
  for (size_t i = 0; i < products.size(); ++i) {
    const TensorType type = products[i].w.type;
    const auto is_same = [&](const DeviceProduct& product) { return product.w.type == type; };
    if (std::ranges::any_of(products.first(i), is_same)) continue;
    std::array<GpuMatmulParams, kGpuMatmulsMax> same{};
    size_t count = 0;
    for (const DeviceProduct& product : products.subspan(i)) {
      if (!is_same(product)) continue;
      same[count++] = params_of(step, product, x);
      if (count < same.size()) continue;
      launch_products(step, same, x, x_count);
      count = 0;
    }
    launch_products(step, std::span(same).first(count), x, x_count);
  }
}

void multiply(const DeviceStep& step, const DeviceProduct& product, DeviceRows& x,
              int64_t x_count) {
  multiply_all(step, std::span(&product, 1), x, x_count);
}

void multiply(const DeviceStep& step, const Matrix& w, DeviceRows& x, int64_t n, float* y,
              int64_t y_stride) {
  multiply(step, {.w = w, .n = n, .y = y, .y_stride = y_stride}, x, n);
}

}  // namespace hearth
