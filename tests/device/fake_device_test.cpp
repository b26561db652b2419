#include "device/fake_device.h"

#include <doctest/doctest.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "child.h"
#include "gpu_kernels/registry.h"

using namespace hearth;
using namespace hearth::test;

namespace {

constexpr uint64_t kSeeds = 20;
constexpr size_t kPage = 4096;
alignas(kPage) unsigned char pages[4 * kPage];

// A copy up on one stream and a kernel on another, with or without what orders them.
bool right_result(uint64_t seed, bool waits) {
  const auto device = make_fake_device({.seed = seed});
  const int64_t count = 100;
  const DeviceBuffer x = device->allocate(count * sizeof(float)),
                     y = device->allocate(count * sizeof(float));
  const PinnedBuffer in = device->allocate_pinned(count * sizeof(float));
  const PinnedBuffer out = device->allocate_pinned(count * sizeof(float));
  const Stream copies = device->create_stream(), work = device->create_stream();
  const Event copied = device->create_event();
  for (int i = 0; i < count; ++i) in.as<float>()[i] = 2;

  device->copy_to_device(x.data(), in.data(), x.bytes(), copies);
  device->record(copied, copies);
  if (waits) device->wait(work, copied);
  const float* all = x.as<float>();
  device->kernels().rms_norm({all, nullptr, 0, 1, count, y.as<float>(), {}}, work.handle());
  device->copy_to_host(out.data(), y.data(), y.bytes(), work);
  device->synchronize(work);
  return out.as<float>()[7] == doctest::Approx(1);
}

// Whether it touches memory that isn't there.
bool faults(const std::function<void()>& touch) {
  const std::string said = failed_check([&] {
    std::signal(SIGSEGV, [](int) { HEARTH_CHECK(!"a fault"); });
    touch();
  });
  return !said.empty();
}

}  // namespace

TEST_CASE("a missing wait shows, a wait is enough") {
  int wrong = 0;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    wrong += right_result(seed, false) ? 0 : 1;
    CHECK(right_result(seed, true));
  }
  CHECK(wrong > 0);
}

TEST_CASE("nothing happens before somebody waits for it") {
  const auto device = make_fake_device();
  const DeviceBuffer x = device->allocate(4);
  const Stream stream = device->create_stream();
  const Event event = device->create_event();
  CHECK(device->done(event));  // never recorded
  device->wait(stream, event);
  float value = 3, back = 0;
  device->copy_to_device(x.data(), &value, 4, stream);
  device->copy_to_host(&back, x.data(), 4, stream);
  device->record(event, stream);
  CHECK(back == 0);
  device->synchronize(event);
  CHECK(back == 3);
  CHECK(device->done(event));

  value = 4;
  device->copy_to_device(x.data(), &value, 4, stream);
  device->copy_to_host(&back, x.data(), 4, stream);
  device->record(event, stream);
  int asked = 1;
  while (!device->done(event)) ++asked;  // asking lets time pass
  CHECK(asked == 3);
  CHECK(back == 4);
}

TEST_CASE("an event stands for the work up to its last record") {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const auto device = make_fake_device({.seed = seed});
    const DeviceBuffer x = device->allocate(4);
    const Stream first = device->create_stream(), second = device->create_stream();
    const Event event = device->create_event();
    const float values[2] = {1, 2};
    float back = 0;
    device->copy_to_device(x.data(), values, 4, first);
    device->record(event, first);
    device->copy_to_device(x.data(), values + 1, 4, first);
    device->record(event, first);
    device->wait(second, event);
    device->copy_to_host(&back, x.data(), 4, second);
    device->synchronize(second);
    CHECK(back == 2);
  }
}

TEST_CASE("device memory holds nothing sensible before it is written") {
  const auto device = make_fake_device();
  const DeviceBuffer x = device->allocate(4), y = device->allocate(4);
  const Stream stream = device->create_stream();
  float back = 0;
  device->copy_on_device(y.data(), x.data(), 4, stream);
  device->copy_to_host(&back, y.data(), 4, stream);
  device->synchronize();
  CHECK(std::isnan(back));
}

TEST_CASE("out of memory says what was asked for, what is free and what to do") {
  const auto device = make_fake_device({.memory_bytes = 3 << 20});
  {
    DeviceBuffer half = device->allocate(2 << 20);
    CHECK(device->memory().free_bytes == 1 << 20);
    std::string message;
    try {
      device->allocate(2 << 20);
    } catch (const Error& error) {
      message = error.what();
    }
    CHECK(message ==
          "fake GPU: 2.0 MiB of GPU memory were asked for, 1.0 MiB of 3.0 MiB are free. "
          "Lower --gpu-budget, or end what else uses the GPU");
    const DeviceBuffer moved = std::move(half);
    CHECK(half.data() == nullptr);
    CHECK(device->memory().free_bytes == 1 << 20);
  }
  CHECK(device->memory().free_bytes == 3 << 20);
  CHECK(device->allocate(0).data() == nullptr);
}

TEST_CASE("misuse is caught") {
  const auto device = make_fake_device();
  const DeviceBuffer x = device->allocate(64);
  const Stream stream = device->create_stream();
  char host[128] = {};
  CHECK(failed_check([&] { device->copy_to_device(x.data(), host, 64, stream); }).empty());
  CHECK_FALSE(failed_check([&] { device->copy_to_device(x.data(), host, 65, stream); }).empty());
  CHECK_FALSE(
      failed_check([&] { device->copy_to_device(x.data() + 1, host, 64, stream); }).empty());
  CHECK_FALSE(failed_check([&] { device->copy_to_host(host, x.data() - 1, 4, stream); }).empty());
  CHECK_FALSE(failed_check([&] { device->copy_on_device(x.data(), host, 4, stream); }).empty());
  const std::string overrun = failed_check([&] {
    DeviceBuffer odd = device->allocate(20);
    odd.data()[20] = 0;
  });
  CHECK_FALSE(overrun.empty());
}

TEST_CASE("only events with timing that are done have a time between them") {
  const auto device = make_fake_device();
  const Stream stream = device->create_stream();
  const Event plain = device->create_event(), never = device->create_event(EventTiming::kOn);
  const Event timed = device->create_event(EventTiming::kOn);
  const auto fails = [&](const Event& first, const Event& last) {
    return !failed_check([&] { device->seconds_between(first, last); }).empty();
  };
  device->record(plain, stream);
  device->record(timed, stream);
  CHECK(fails(timed, timed));
  device->synchronize();
  CHECK_FALSE(fails(timed, timed));
  CHECK(fails(plain, timed));
  CHECK(fails(timed, never));
}

TEST_CASE("pinned bytes and copies of memory that is not pinned are counted") {
  const auto device = make_fake_device({.pin_bytes = 100});
  const DeviceBuffer x = device->allocate(64);
  const Stream stream = device->create_stream();
  const PinnedBuffer buffer = device->allocate_pinned(64);
  CHECK(counts(*device).pinned_bytes == 64);
  device->copy_to_device(x.data(), buffer.data(), 64, stream);
  CHECK(counts(*device).unpinned_copies == 0);
  device->copy_to_device(x.data(), pages, 64, stream);
  device->copy_to_host(pages, x.data(), 64, stream);
  CHECK(counts(*device).unpinned_copies == 2);
  {
    const Pinning pinning = device->pin(pages, 60);
    CHECK(pinning.why_not.empty());
    CHECK(pinning.range.data() == pages);
    CHECK(pinning.range.bytes() == 60);
    CHECK(counts(*device).pinned_bytes == 124);
    device->copy_to_device(x.data(), pages + 1, 59, stream);
    CHECK(counts(*device).unpinned_copies == 2);
    device->copy_to_host(pages + 60, x.data(), 64, stream);
    CHECK(counts(*device).unpinned_copies == 3);

    const Pinning refused = device->pin(pages + kPage, 41);
    CHECK_FALSE(refused.why_not.empty());
    CHECK(refused.range.data() == nullptr);
    CHECK(counts(*device).pinned_bytes == 124);
    CHECK(device->pin(pages + kPage, 40).why_not.empty());
    CHECK(counts(*device).pinned_bytes == 124);  // nobody kept it
  }
  CHECK(counts(*device).pinned_bytes == 64);
  CHECK(device->pin(pages, 0).range.data() == nullptr);
}

TEST_CASE("pages count when they are taken, and nobody touches others") {
  const auto gpu = make_fake_device({.memory_bytes = 1 << 16});
  const size_t page = gpu->page_bytes();
  const auto taken = [&] { return (1 << 16) - gpu->memory().free_bytes; };
  {
    DeviceRange range(*gpu, 40 * page);  // more addresses than memory
    CHECK(taken() == 0);
    range.take(0, 2 * page);
    CHECK(taken() == static_cast<int64_t>(2 * page));
    CHECK(std::isnan(*reinterpret_cast<float*>(range.data() + 2 * page - sizeof(float))));
    CHECK(faults([&] { range.data()[2 * page] = 0; }));
    range.take(30 * page, 31 * page);
    std::string what;
    try {
      range.take(0, 40 * page);
    } catch (const Error& error) {
      what = error.what();
    }
    CHECK(what.find("--gpu-budget") != std::string::npos);
    CHECK(taken() == static_cast<int64_t>(range.taken_bytes()));
    range.give_back(page);  // what was taken together goes together
    CHECK(range.taken_bytes() == 2 * page);
    CHECK(faults([&] { range.data()[30 * page] = 0; }));
    range.give_back(0);
    CHECK(taken() == 0);
    range.take(5 * page, 6 * page);
  }
  CHECK(taken() == 0);
  const auto plain = make_fake_device({.memory_bytes = 1 << 16, .has_pages = false});
  DeviceRange whole(*plain, 1000);
  CHECK(whole.bytes() == 1000);
  CHECK(whole.taken_bytes() == 1000);
  whole.take(10, 20);
  whole.give_back(0);
  CHECK((1 << 16) - plain->memory().free_bytes == 1000);
}

TEST_CASE("misuse of pinned ranges is caught") {
  const auto device = make_fake_device();
  const DeviceBuffer x = device->allocate(64);
  const Stream stream = device->create_stream();
  const PinnedBuffer buffer = device->allocate_pinned(64);
  const Pinning pinning = device->pin(pages + kPage + 50, 50);
  const auto pin_fails = [&](unsigned char* memory, size_t bytes) {
    return !failed_check([&] { device->pin(memory, bytes); }).empty();
  };
  CHECK(pin_fails(pages, 3 * kPage));
  CHECK(pin_fails(pages, kPage + 1));  // the same page, not the same bytes
  CHECK(pin_fails(pages + 2 * kPage - 1, 100));
  CHECK(pin_fails(buffer.data() + 63, 1));
  CHECK_FALSE(pin_fails(pages, kPage));
  CHECK_FALSE(pin_fails(pages + 2 * kPage, kPage));
  const unsigned char* before = pages + kPage + 49;
  CHECK_FALSE(failed_check([&] { device->copy_to_device(x.data(), before, 2, stream); }).empty());
  CHECK_FALSE(
      failed_check([&] { device->copy_to_host(pages + kPage + 99, x.data(), 2, stream); }).empty());
}

TEST_CASE("a wait that is missing within a graph shows") {
  int wrong = 0;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const auto device = make_fake_device({.seed = seed});
    const PinnedBuffer host = device->allocate_pinned(8);
    const DeviceBuffer x = device->allocate(4);
    const Stream first = device->create_stream(), second = device->create_stream();
    const Event forked = device->create_event(), joined = device->create_event();
    const DeviceGraph graph = device->capture(first, [&] {
      device->record(forked, first);
      device->wait(second, forked);
      device->copy_to_device(x.data(), host.data(), 4, first);
      device->copy_to_host(host.data() + 4, x.data(), 4, second);
      device->record(joined, second);
      device->wait(first, joined);
    });
    host.as<float>()[0] = 1;
    device->launch(graph, first);
    device->synchronize();
    wrong += host.as<float>()[1] == 1 ? 0 : 1;
  }
  CHECK(wrong > 0);
  CHECK(wrong < static_cast<int>(kSeeds));
}

TEST_CASE("misuse of captures is caught") {
  const auto device = make_fake_device();
  const DeviceBuffer x = device->allocate(64);
  const PinnedBuffer pinned = device->allocate_pinned(64);
  const Stream first = device->create_stream(), second = device->create_stream();
  const Event outside = device->create_event(), inside = device->create_event();
  const DeviceGraph graph = device->capture(first, [&] { device->record(inside, first); });
  device->record(outside, first);
  const auto fails = [&](const std::function<void()>& enqueue) {
    return !failed_check([&] { device->capture(first, enqueue); }).empty();
  };
  const auto copy = [&](const void* from, const Stream& stream) {
    device->copy_to_device(x.data(), from, 64, stream);
  };
  const auto fork = [&] {
    device->record(inside, first);
    device->wait(second, inside);
    copy(pinned.data(), second);
  };
  const auto join = [&] {
    device->record(inside, second);
    device->wait(first, inside);
  };
  CHECK(fails(fork));
  CHECK(fails([&] { fork(), join(), copy(pinned.data(), second); }));
  CHECK_FALSE(fails([&] { fork(), join(); }));
  CHECK(fails([&] { copy(pages, first); }));
  CHECK_FALSE(fails([&] { copy(pages, second); }));  // not captured
  CHECK(fails([&] { device->wait(first, outside); }));
  CHECK(fails([&] { device->wait(first, inside); }));  // of another capture
  CHECK(fails([&] { device->synchronize(); }));
  CHECK(fails([&] { device->synchronize(second); }));
  CHECK(fails([&] { device->synchronize(outside); }));
  CHECK(fails([&] { device->done(outside); }));
  CHECK(fails([&] { device->launch(graph, second); }));
  CHECK(fails([&] { device->allocate(1); }));
  CHECK(fails([&] { device->allocate_pinned(1); }));
  CHECK(fails([&] { device->pin(pages, 1); }));
  CHECK(fails([&] { device->create_stream(); }));
  CHECK(fails([&] { device->create_event(); }));
  CHECK(fails([&] { device->capture(second, [] {}); }));

  CHECK_FALSE(failed_check([&] { device->wait(second, inside); }).empty());
  CHECK_FALSE(failed_check([&] { device->done(inside); }).empty());
  CHECK_FALSE(failed_check([&] { device->synchronize(inside); }).empty());
  device->record(inside, first);
  CHECK(failed_check([&] { device->wait(second, inside); }).empty());
}

TEST_CASE("a machine without a GPU says so") {
  const FoundDevice found = open_device(0);
  CHECK(found.why_not.empty() == (found.device != nullptr));
  if (found.device == nullptr)
    CHECK_MESSAGE(found.why_not.find("CUDA") != std::string::npos, found.why_not);
}
