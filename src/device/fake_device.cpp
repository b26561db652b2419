#include "device/fake_device.h"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "base/check.h"
#include "device/fake_memory.h"
#include "gpu_kernels/emulation/stream.h"
#include "gpu_kernels/registry.h"

namespace hearth {
namespace {

using Clock = std::chrono::steady_clock;

struct FakeEvent {
  EventTiming timing = EventTiming::kOff;
  uint64_t recorded = 0;  // how often
  uint64_t reached = 0;   // the latest record that is done
  Clock::time_point reached_at{};
};

// One entry of a queue: work, which stands back while `event` has not reached `record`. Records and
// waits are entries as well.
struct Entry {
  std::function<void()> work;
  const FakeEvent* event = nullptr;
  uint64_t record = 0;

  bool can_run() const { return event == nullptr || event->reached >= record; }
};

struct FakeStream final : EmulatedStream {
  void enqueue(std::function<void()> work) override { queue.push_back({std::move(work)}); }
  std::deque<Entry> queue;
};

class FakeDevice final : public Device {
 public:
  explicit FakeDevice(const FakeDeviceOptions& options)
      : memory_(options.memory_bytes), pin_bytes_(options.pin_bytes), random_(options.seed) {}
  ~FakeDevice() override { HEARTH_CHECK(streams_.empty() && ranges_.empty()); }

  FakeDeviceCounts counts() const {
    return {pinned_.live().bytes() + ranges_.bytes(), unpinned_copies_};
  }

  const std::string& name() const override { return name_; }
  const GpuKernels& kernels() const override { return emulated_kernels(); }
  DeviceMemory memory() const override { return {memory_.free_bytes(), memory_.limit()}; }

  void copy_to_device(void* to, const void* from, size_t bytes, const Stream& stream) override {
    HEARTH_CHECK(memory_.live().holds(to, bytes));
    note_host(from, bytes);
    copy(to, from, bytes, stream);
  }
  void copy_to_host(void* to, const void* from, size_t bytes, const Stream& stream) override {
    HEARTH_CHECK(memory_.live().holds(from, bytes));
    note_host(to, bytes);
    copy(to, from, bytes, stream);
  }
  void copy_on_device(void* to, const void* from, size_t bytes, const Stream& stream) override {
    HEARTH_CHECK(memory_.live().holds(to, bytes) && memory_.live().holds(from, bytes));
    copy(to, from, bytes, stream);
  }

  void record(const Event& event, const Stream& stream) override {
    FakeEvent* fake = of(event);
    const uint64_t number = ++fake->recorded;
    of(stream)->enqueue([=] {
      fake->reached = number;
      fake->reached_at = Clock::now();
    });
  }
  void wait(const Stream& stream, const Event& event) override {
    of(stream)->queue.push_back({[] {}, of(event), of(event)->recorded});
  }
  bool done(const Event& event) override {
    if (of(event)->reached < of(event)->recorded) run_one();
    return of(event)->reached >= of(event)->recorded;
  }

  double seconds_between(const Event& first, const Event& last) override {
    for (const FakeEvent* event : {of(first), of(last)}) {
      HEARTH_CHECK(event->timing == EventTiming::kOn);
      HEARTH_CHECK(event->recorded > 0 && event->reached == event->recorded);
    }
    return std::chrono::duration<double>(of(last)->reached_at - of(first)->reached_at).count();
  }

  void synchronize() override {
    while (!all_empty()) run_one();
  }
  void synchronize(const Stream& stream) override {
    while (!of(stream)->queue.empty()) run_one();
  }
  void synchronize(const Event& event) override {
    const uint64_t wanted = of(event)->recorded;
    while (of(event)->reached < wanted) run_one();
  }

 protected:
  void* new_memory(size_t bytes) override {
    void* memory = memory_.allocate(bytes);
    if (memory == nullptr) throw_out_of_memory(bytes);
    return memory;
  }
  void* new_pinned(size_t bytes) override { return pinned_.allocate(bytes); }
  std::string try_pin(void* memory, size_t bytes) override {
    const uintptr_t begin = reinterpret_cast<uintptr_t>(memory), before = begin % page_bytes();
    const unsigned char* page = static_cast<unsigned char*>(memory) - before;
    const size_t pages_bytes = (before + bytes + page_bytes() - 1) / page_bytes() * page_bytes();
    HEARTH_CHECK(!pinned_.live().meets(page, pages_bytes) && !ranges_.meets(page, pages_bytes));
    if (ranges_.bytes() + static_cast<int64_t>(bytes) > pin_bytes_)
      return "the fake device pins no more";
    ranges_.add(memory, bytes);
    return "";
  }
  void* new_stream() override {
    streams_.push_back(std::make_unique<FakeStream>());
    // As the kernels take it: a pointer to the part that they know.
    return static_cast<EmulatedStream*>(streams_.back().get());
  }
  void* new_event(EventTiming timing) override { return new FakeEvent{.timing = timing}; }

  // Like CUDA, what goes first lets the work finish that may use it.
  void free_memory(void* memory) noexcept override {
    synchronize();
    memory_.release(memory);
  }
  void free_pinned(void* memory) noexcept override {
    synchronize();
    pinned_.release(memory);
  }
  void end_pin(void* memory) noexcept override {
    synchronize();
    ranges_.remove(memory);
  }
  void free_stream(void* stream) noexcept override {
    synchronize();
    std::erase_if(streams_, [&](const auto& one) {
      return static_cast<EmulatedStream*>(one.get()) == stream;
    });
  }
  void free_event(void* event) noexcept override {
    synchronize();
    delete static_cast<FakeEvent*>(event);
  }

 private:
  static FakeStream* of(const Stream& stream) {
    return static_cast<FakeStream*>(static_cast<EmulatedStream*>(stream.get()));
  }
  static FakeEvent* of(const Event& event) { return static_cast<FakeEvent*>(event.get()); }

  void note_host(const void* memory, size_t bytes) {
    if (pinned_.live().holds(memory, bytes) || ranges_.holds(memory, bytes)) return;
    HEARTH_CHECK(!pinned_.live().meets(memory, bytes) && !ranges_.meets(memory, bytes));
    ++unpinned_copies_;
  }

  static void copy(void* to, const void* from, size_t bytes, const Stream& stream) {
    if (bytes > 0) of(stream)->enqueue([=] { std::memcpy(to, from, bytes); });
  }

  bool all_empty() const {
    for (const auto& stream : streams_) {
      if (!stream->queue.empty()) return false;
    }
    return true;
  }

  // One entry of any stream whose turn it can be. There is always one: an event is recorded before
  // it is waited for.
  void run_one() {
    std::vector<FakeStream*> can_run;
    for (const auto& stream : streams_) {
      if (!stream->queue.empty() && stream->queue.front().can_run())
        can_run.push_back(stream.get());
    }
    HEARTH_CHECK(!can_run.empty());
    std::deque<Entry>& queue = can_run[random_() % can_run.size()]->queue;
    const Entry entry = std::move(queue.front());
    queue.pop_front();
    entry.work();
  }

  std::string name_ = "fake GPU";
  FakeMemory memory_;
  FakeMemory pinned_{std::numeric_limits<int64_t>::max()};
  ByteRanges ranges_;  // pinned by pin()
  int64_t pin_bytes_;
  int64_t unpinned_copies_ = 0;
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<FakeStream>> streams_;
};

}  // namespace

std::unique_ptr<Device> make_fake_device(const FakeDeviceOptions& options) {
  return std::make_unique<FakeDevice>(options);
}

FakeDeviceCounts counts(const Device& fake) {
  const FakeDevice* device = dynamic_cast<const FakeDevice*>(&fake);
  HEARTH_CHECK(device != nullptr);
  return device->counts();
}

}  // namespace hearth
