// What a GpuStream points at where kernels are emulated: launches become closures, and whoever owns
// the stream decides when they run.
#pragma once

#include <functional>

namespace hearth {

class EmulatedStream {
 public:
  virtual void enqueue(std::function<void()> work) = 0;

 protected:
  ~EmulatedStream() = default;
};

}  // namespace hearth
