#include "model/device/exchange.h"

namespace hearth {

Exchange::Exchange(Device& device, const ModelConfig& config, int64_t chunk)
    : device_(device),
      rows_{config.dim, config.experts_used},
      brought_(device.allocate_pinned(static_cast<size_t>(rows_.floats(chunk)) * sizeof(float))),
      sums_(device.allocate_pinned(static_cast<size_t>(chunk * config.dim) * sizeof(float))),
      arrived_(device.create_event()) {}

void Exchange::bring(const DeviceScratch& act, int64_t n, const Stream& stream) {
  device_.copy_to_host(brought_.data(), act.x.values,
                       static_cast<size_t>(rows_.floats(n)) * sizeof(float), stream);
}

BroughtRows Exchange::wait(int64_t n) {
  device_.synchronize(arrived_);
  float* x = brought_.as<float>();
  return {x, rows_.picks(x, n), rows_.weights(x, n)};
}

void Exchange::send(float* elsewhere, int64_t n, const Stream& stream) {
  device_.copy_to_device(elsewhere, sums_.data(),
                         static_cast<size_t>(n * rows_.dim) * sizeof(float), stream);
}

int64_t exchange_bytes(const ModelConfig& config, int64_t chunk) {
  const RoutedRows rows{config.dim, config.experts_used};
  return (rows.floats(chunk) + chunk * config.dim) * int64_t{sizeof(float)};
}

}  // namespace hearth
