#include "gpu_kernels/gpu.h"

#include <doctest/doctest.h>

#include "base/check.h"
#include "device/fake_device.h"
#include "gpu_kernels/emulation/simt_host.h"
#include "gpu_kernels/registry.h"
#include "support.h"

namespace hearth::test {
namespace {

std::unique_ptr<Device> open_for_tests(uint64_t seed) {
  if (device() == "fake") {
    emulated::set_thread_order(seed);
    return make_fake_device({.memory_bytes = int64_t{1} << 30, .seed = seed});
  }
  HEARTH_CHECK(device() == "cuda");
  FoundDevice found = open_device(0);
  HEARTH_CHECK(found.device != nullptr);  // the gate has asked
  return std::move(found.device);
}

[[maybe_unused]] const bool gate_is_set = [] {
  set_gate([] { return device() == "cuda" ? open_device(0).why_not : std::string(); });
  return true;
}();

}  // namespace

Gpu::Gpu(uint64_t seed) : device_(open_for_tests(seed)), stream_(device_->create_stream()) {}

}  // namespace hearth::test

TEST_CASE("the table is the one that was asked for") {
  hearth::test::Gpu gpu;
  const bool fake = hearth::test::device() == "fake";
  CHECK(std::string(gpu.kernels().name) == (fake ? "emulated" : "cuda"));
  CHECK((hearth::cuda_kernels() != nullptr) == (hearth::open_device(0).device != nullptr));
}
