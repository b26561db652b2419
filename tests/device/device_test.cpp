// What every device does: runs on the fake one, or on a GPU with --device cuda.
#include "device/device.h"

#include <doctest/doctest.h>

#include <memory>
#include <utility>
#include <vector>

#include "base/check.h"
#include "device/fake_device.h"
#include "support.h"

using namespace hearth;
using namespace hearth::test;

namespace {

[[maybe_unused]] const bool gate_is_set = [] {
  set_gate([] { return device() == "cuda" ? open_device(0).why_not : std::string(); });
  return true;
}();

// Of the fake device, `seed` orders the streams.
std::unique_ptr<Device> open_for_tests(uint64_t seed = 1) {
  if (device() == "fake") return make_fake_device({.seed = seed});
  HEARTH_CHECK(device() == "cuda");
  FoundDevice found = open_device(0);
  HEARTH_CHECK(found.device != nullptr);  // the gate has asked
  return std::move(found.device);
}

}  // namespace

TEST_CASE("the time between two events is that of the work between them") {
  const auto gpu = open_for_tests();
  const size_t bytes = 32 << 20;
  const DeviceBuffer x = gpu->allocate(bytes), y = gpu->allocate(bytes);
  const Stream stream = gpu->create_stream();
  const Event begin = gpu->create_event(EventTiming::kOn);
  const Event middle = gpu->create_event(EventTiming::kOn);
  const Event end = gpu->create_event(EventTiming::kOn);
  gpu->record(begin, stream);
  gpu->copy_on_device(y.data(), x.data(), bytes, stream);
  gpu->record(middle, stream);
  for (int i = 0; i < 20; ++i) gpu->copy_on_device(y.data(), x.data(), bytes, stream);
  gpu->record(end, stream);
  gpu->synchronize(end);
  const double one = gpu->seconds_between(begin, middle);
  const double all = gpu->seconds_between(begin, end);
  CHECK(one > 1e-6);  // no memory copies 32 TB/s
  CHECK(all > one);
  CHECK(all < 60);
  CHECK(gpu->seconds_between(end, begin) == doctest::Approx(-all));
  gpu->record(begin, stream);  // again: later than the end
  gpu->synchronize(stream);
  CHECK(gpu->seconds_between(begin, end) < 0);
}

TEST_CASE("memory that exists is pinned, and copied from and to") {
  const auto gpu = open_for_tests();
  const size_t page = 4096, count = 4 * page / sizeof(int32_t);
  std::vector<int32_t> memory(3 * count, 1);
  // Whole pages, which nothing else shares.
  void* begin = memory.data();
  size_t space = memory.size() * sizeof(int32_t);
  int32_t* host =
      static_cast<int32_t*>(std::align(page, 2 * count * sizeof(int32_t), begin, space));
  REQUIRE(host != nullptr);
  const DeviceBuffer x = gpu->allocate(count * sizeof(int32_t));
  const Stream stream = gpu->create_stream();
  for (size_t i = 0; i < count; ++i) host[i] = static_cast<int32_t>(i);
  for (int round = 0; round < 2; ++round) {  // what was pinned can be again
    Pinning pinning = gpu->pin(host, 2 * count * sizeof(int32_t));
    REQUIRE_MESSAGE(pinning.range.data() != nullptr, pinning.why_not);
    gpu->copy_to_device(x.data(), host, x.bytes(), stream);
    gpu->copy_to_host(host + count, x.data(), x.bytes(), stream);
    pinning = {};  // waits for the copies
    CHECK(host[count + 7] == 7);
    host[count + 7] = 0;
  }
  gpu->copy_to_device(x.data(), host, x.bytes(), stream);
  gpu->copy_to_host(host + count, x.data(), x.bytes(), stream);
  gpu->synchronize(stream);
  CHECK(host[count + 7] == 7);
}
