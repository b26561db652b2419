#include "gpu_kernels/gpu.h"

#include <doctest/doctest.h>

#include "gpu_kernels/registry.h"
#include "open_device.h"

namespace hearth::test {
Gpu::Gpu(uint64_t seed) : device_(open_for_tests(seed)), stream_(device_->create_stream()) {}

}  // namespace hearth::test

TEST_CASE("the table is the one that was asked for") {
  hearth::test::Gpu gpu;
  const bool fake = hearth::test::device() == "fake";
  CHECK(std::string(gpu.kernels().name) == (fake ? "emulated" : "cuda"));
  CHECK((hearth::cuda_kernels() != nullptr) == (hearth::open_device(0).device != nullptr));
}
