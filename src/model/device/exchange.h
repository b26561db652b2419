// What passes between a device and the host that computes the experts it doesn't hold: inputs and
// picks come down, weighted sums go up, in one copy each a layer.
#pragma once

#include <cstdint>

#include "device/device.h"
#include "model/config.h"
#include "model/device/scratch.h"

namespace hearth {

// A layer's inputs on the host; valid until the next come down.
struct BroughtRows {
  const float* x;        // [n, dim]
  const int32_t* picks;  // [n, experts_used]
  const float* weights;  // [n, experts_used + 1]
};

class Exchange {
 public:
  // For at most `chunk` rows.
  Exchange(Device& device, const ModelConfig& config, int64_t chunk);

  // Enqueues the copy of the routed rows in `act`; then mark, outside of captured work.
  void bring(const DeviceScratch& act, int64_t n, const Stream& stream);
  void mark(const Stream& stream) { device_.record(arrived_, stream); }
  // Waits for it.
  BroughtRows wait(int64_t n);
  // Where the host puts the sums [n, dim], after wait.
  float* sums() const { return sums_.as<float>(); }
  // Enqueues their copy to `elsewhere` [n, dim].
  void send(float* elsewhere, int64_t n, const Stream& stream);

 private:
  Device& device_;
  const RoutedRows rows_;
  PinnedBuffer brought_;
  PinnedBuffer sums_;
  Event arrived_;
};

// Pinned bytes that an Exchange allocates.
int64_t exchange_bytes(const ModelConfig& config, int64_t chunk);

}  // namespace hearth
