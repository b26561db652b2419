// What every device does: runs on the fake one, or on a GPU with --device cuda.
#include "device/device.h"

#include <doctest/doctest.h>

#include <memory>
#include <utility>
#include <vector>

#include "base/error.h"
#include "open_device.h"

using namespace hearth;
using namespace hearth::test;

namespace {

// Numbers on the device, 0, 1, 2 and so on, that one piece of work moves up by one place: done n
// times, one after the other, place i holds i - n, from the nth on.
class Shift {
 public:
  static constexpr size_t kCount = 64, kBytes = kCount * sizeof(int32_t);

  explicit Shift(Device& gpu)
      : gpu_(gpu),
        numbers_(gpu.allocate(kBytes)),
        copy_(gpu.allocate(kBytes)),
        host_(gpu.allocate_pinned(kBytes)) {}

  void start(const Stream& stream) {
    for (size_t i = 0; i < kCount; ++i) host_.as<int32_t>()[i] = static_cast<int32_t>(i);
    gpu_.copy_to_device(numbers_.data(), host_.data(), kBytes, stream);
    gpu_.synchronize(stream);
  }
  void take(const Stream& stream) {
    gpu_.copy_on_device(copy_.data(), numbers_.data(), kBytes, stream);
  }
  void put(const Stream& stream) {
    const size_t step = sizeof(int32_t);
    gpu_.copy_on_device(numbers_.data() + step, copy_.data(), kBytes - step, stream);
  }
  // How often, after the work of the stream.
  int32_t done(const Stream& stream) {
    gpu_.copy_to_host(host_.data(), numbers_.data(), kBytes, stream);
    gpu_.synchronize(stream);
    return static_cast<int32_t>(kCount) - 1 - host_.as<int32_t>()[kCount - 1];
  }

 private:
  Device& gpu_;
  DeviceBuffer numbers_, copy_;
  PinnedBuffer host_;
};

constexpr uint64_t kSeeds = 20;

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

TEST_CASE("kernels read and write pinned buffers at the host's addresses") {
  const auto gpu = open_for_tests();
  const Stream stream = gpu->create_stream();
  constexpr size_t kCount = 1000;
  const PinnedBuffer x = gpu->allocate_pinned(kCount * sizeof(float));
  const PinnedBuffer sum = gpu->allocate_pinned(kCount * sizeof(float));
  for (size_t i = 0; i < kCount; ++i) {
    x.as<float>()[i] = static_cast<float>(i);
    sum.as<float>()[i] = 1;
  }
  for (int i = 0; i < 2; ++i) {
    gpu->kernels().add({x.as<float>(), kCount, sum.as<float>()}, stream.handle());
  }
  gpu->synchronize(stream);
  for (size_t i = 0; i < kCount; ++i) {
    CHECK(sum.as<float>()[i] == 1 + 2 * static_cast<float>(i));
  }
}

TEST_CASE("a range takes memory page by page, at addresses that stay") {
  const auto gpu = open_for_tests();
  const Stream stream = gpu->create_stream();
  const size_t page = gpu->page_bytes();
  if (page == 0) return;
  DeviceRange range(*gpu, 4 * page - 5);
  CHECK(range.bytes() == 4 * page);
  CHECK(range.taken_bytes() == 0);
  range.take(page - 1, page + 1);
  CHECK(range.taken_bytes() == 2 * page);
  unsigned char* const data = range.data();
  const PinnedBuffer host = gpu->allocate_pinned(page);
  const auto add_one = [&](size_t place) {  // to the floats of a page
    gpu->kernels().add({host.as<float>(), static_cast<int64_t>(page / sizeof(float)),
                        reinterpret_cast<float*>(data + place * page)},
                       stream.handle());
  };
  for (size_t i = 0; i < page / sizeof(float); ++i) host.as<float>()[i] = 0;
  gpu->copy_to_device(data + page, host.data(), page, stream);
  gpu->synchronize(stream);
  for (size_t i = 0; i < page / sizeof(float); ++i) host.as<float>()[i] = 1;
  const DeviceGraph graph = gpu->capture(stream, [&] { add_one(1); });
  gpu->launch(graph, stream);
  range.take(0, 4 * page);  // what has its memory keeps it
  CHECK(range.taken_bytes() == 4 * page);
  range.give_back(page + 1);
  CHECK(range.taken_bytes() == 2 * page);
  gpu->launch(graph, stream);
  range.take(3 * page, 3 * page);
  CHECK(range.taken_bytes() == 2 * page);
  gpu->copy_to_host(host.data(), data + page, page, stream);
  gpu->synchronize(stream);
  CHECK(host.as<float>()[0] == 2);
  CHECK(host.as<float>()[page / sizeof(float) - 1] == 2);

  DeviceRange moved = std::move(range);
  CHECK(moved.data() == data);
  moved.give_back(0);
  CHECK(moved.taken_bytes() == 0);
  CHECK(DeviceRange(*gpu, 0).bytes() == 0);
}

TEST_CASE("a graph runs when it is launched, not when it is captured, on any stream") {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const auto gpu = open_for_tests(seed);
    Shift shift(*gpu);
    const Stream captured = gpu->create_stream(), launched = gpu->create_stream();
    shift.start(captured);
    const DeviceGraph graph = gpu->capture(captured, [&] {
      shift.take(captured);
      shift.put(captured);
    });
    CHECK(shift.done(captured) == 0);
    gpu->launch(graph, launched);
    shift.take(launched);  // in order with what else the stream has
    shift.put(launched);
    for (int i = 0; i < 3; ++i) gpu->launch(graph, launched);
    CHECK(shift.done(launched) == 5);
    shift.take(captured);
    shift.put(captured);
    CHECK(shift.done(captured) == 6);
  }
}

TEST_CASE("a graph has kernels, and reads memory as it is when it runs") {
  const auto gpu = open_for_tests();
  const int64_t count = 64;
  const DeviceBuffer x = gpu->allocate(count * sizeof(float)), y = gpu->allocate(x.bytes());
  const PinnedBuffer in = gpu->allocate_pinned(x.bytes()), out = gpu->allocate_pinned(x.bytes());
  const Stream stream = gpu->create_stream();
  const DeviceGraph graph = gpu->capture(stream, [&] {
    gpu->copy_to_device(x.data(), in.data(), x.bytes(), stream);
    gpu->kernels().rms_norm({x.as<float>(), nullptr, 0, 1, count, y.as<float>(), {}},
                            stream.handle());
    gpu->copy_to_host(out.data(), y.data(), y.bytes(), stream);
  });
  for (const float sign : {1.0F, -1.0F}) {
    for (int i = 0; i < count; ++i) in.as<float>()[i] = 2 * sign;
    gpu->launch(graph, stream);
    gpu->synchronize(stream);
    CHECK(out.as<float>()[7] == doctest::Approx(sign));
  }
}

TEST_CASE("streams that wait for one another are captured together") {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const auto gpu = open_for_tests(seed);
    Shift shift(*gpu);
    const Stream first = gpu->create_stream(), second = gpu->create_stream();
    const Event forked = gpu->create_event(), joined = gpu->create_event();
    shift.start(first);
    const auto enqueue = [&] {
      shift.take(first);
      gpu->record(forked, first);
      gpu->wait(second, forked);
      shift.put(second);
      shift.take(second);
      gpu->record(joined, second);
      gpu->wait(first, joined);
      shift.put(first);
    };
    const DeviceGraph graph = gpu->capture(first, enqueue);
    CHECK(shift.done(second) == 0);  // takes work as before
    gpu->launch(graph, first);
    gpu->launch(graph, second);  // goes after the other launch
    gpu->record(joined, second);
    gpu->wait(first, joined);
    enqueue();
    CHECK(shift.done(first) == 6);
    CHECK(gpu->done(forked));
  }
}

TEST_CASE("what is thrown ends a capture, and leaves streams and device as they were") {
  const auto gpu = open_for_tests();
  Shift shift(*gpu);
  const Stream first = gpu->create_stream(), second = gpu->create_stream();
  const Event forked = gpu->create_event();
  shift.start(first);
  const auto fails = [&] {
    gpu->capture(first, [&] {
      shift.take(first);
      gpu->record(forked, first);
      gpu->wait(second, forked);
      shift.put(second);
      throw Error("no more", "here", "");
    });
  };
  CHECK_THROWS_WITH_AS(fails(), "here: no more", Error);
  CHECK(shift.done(first) == 0);
  for (const Stream* stream : {&first, &second}) {
    const DeviceGraph graph = gpu->capture(*stream, [&] {
      shift.take(*stream);
      shift.put(*stream);
    });
    gpu->launch(graph, *stream);
    gpu->synchronize(*stream);
  }
  CHECK(shift.done(second) == 2);
}

TEST_CASE("an empty graph does nothing") {
  const auto gpu = open_for_tests();
  const Stream stream = gpu->create_stream();
  const DeviceGraph graph = gpu->capture(stream, [] {});
  gpu->launch(graph, stream);
  gpu->synchronize();
  CHECK(DeviceGraph().get() == nullptr);
}
