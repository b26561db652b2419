#include "device/fake_device.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>
#include <vector>

#include "base/check.h"
#include "device/fake_memory.h"
#include "device/fake_stream.h"
#include "gpu_kernels/registry.h"

namespace hearth {
namespace {

class FakeDevice final : public Device {
 public:
  explicit FakeDevice(const FakeDeviceOptions& options)
      : memory_(options.memory_bytes),
        pinned_(options.pinned_buffer_bytes),
        page_bytes_(options.has_pages ? hearth::page_bytes() : 0),
        pin_bytes_(options.pin_bytes),
        random_(options.seed) {}
  ~FakeDevice() override { HEARTH_CHECK(streams_.empty() && ranges_.empty()); }

  FakeDeviceCounts counts() const {
    return {pinned_.live().bytes() + ranges_.bytes(), unpinned_copies_, pinned_.live().bytes(),
            memory_.most_bytes()};
  }

  const std::string& name() const override { return name_; }
  const GpuKernels& kernels() const override { return emulated_kernels(); }
  DeviceMemory memory() const override { return {memory_.free_bytes(), memory_.limit()}; }
  DeviceCores cores() const override { return {60, 2.5}; }
  size_t page_bytes() const override { return page_bytes_; }

  void copy_to_device(void* to, const void* from, size_t bytes, const Stream& stream) override {
    HEARTH_CHECK(memory_.live().holds(to, bytes));
    note_host(from, bytes, stream);
    copy(to, from, bytes, stream);
  }
  void copy_to_host(void* to, const void* from, size_t bytes, const Stream& stream) override {
    HEARTH_CHECK(memory_.live().holds(from, bytes));
    note_host(to, bytes, stream);
    copy(to, from, bytes, stream);
  }
  void copy_on_device(void* to, const void* from, size_t bytes, const Stream& stream) override {
    HEARTH_CHECK(memory_.live().holds(to, bytes) && memory_.live().holds(from, bytes));
    copy(to, from, bytes, stream);
  }

  void record(const Event& event, const Stream& stream) override { of(stream)->record(of(event)); }
  void wait(const Stream& stream, const Event& event) override {
    if (capture_ != nullptr && of(event)->capture == capture_->number()) capture_->join(of(stream));
    of(stream)->wait(of(event));
  }
  bool done(const Event& event) override {
    HEARTH_CHECK(capture_ == nullptr && of(event)->capture == 0);
    if (of(event)->reached < of(event)->recorded) run_one();
    return of(event)->reached >= of(event)->recorded;
  }
  double seconds_between(const Event& first, const Event& last) override {
    for (const FakeEvent* event : {of(first), of(last)}) {
      HEARTH_CHECK(event->timing == EventTiming::kOn && event->capture == 0);
      HEARTH_CHECK(event->recorded > 0 && event->reached == event->recorded);
    }
    return std::chrono::duration<double>(of(last)->reached_at - of(first)->reached_at).count();
  }

  void launch(const DeviceGraph& graph, const Stream& stream) override {
    HEARTH_CHECK(capture_ == nullptr);
    static_cast<FakeGraph*>(graph.get())->launch(of(stream));
  }

  void synchronize() override {
    HEARTH_CHECK(capture_ == nullptr);
    while (!all_empty()) run_one();
  }
  void synchronize(const Stream& stream) override {
    HEARTH_CHECK(capture_ == nullptr);
    while (!of(stream)->empty()) run_one();
  }
  void synchronize(const Event& event) override {
    HEARTH_CHECK(capture_ == nullptr && of(event)->capture == 0);
    const uint64_t wanted = of(event)->recorded;
    while (of(event)->reached < wanted) run_one();
  }

 protected:
  void* new_memory(size_t bytes) override {
    void* memory = memory_.allocate(bytes);
    if (memory == nullptr) throw_out_of_memory(bytes);
    return memory;
  }
  void* new_pinned(size_t bytes) override {
    void* memory = pinned_.allocate(bytes);
    if (memory == nullptr) throw_cannot_pin(bytes, "the fake device pins no more");
    return memory;
  }
  void* new_addresses(size_t bytes) override { return memory_.reserve(bytes); }
  void free_addresses(void* begin, size_t bytes) noexcept override {
    memory_.release_addresses(begin, bytes);
  }
  void map(void* begin, size_t bytes) override {
    if (!memory_.map(begin, bytes)) throw_out_of_memory(bytes);
  }
  void unmap(void* begin, size_t bytes) noexcept override {
    synchronize();
    memory_.unmap(begin, bytes);
  }
  std::string try_pin(void* memory, size_t bytes) override {
    const uintptr_t begin = reinterpret_cast<uintptr_t>(memory),
                    before = begin % hearth::page_bytes();
    const unsigned char* page = static_cast<unsigned char*>(memory) - before;
    const size_t pages_bytes =
        (before + bytes + hearth::page_bytes() - 1) / hearth::page_bytes() * hearth::page_bytes();
    HEARTH_CHECK(!pinned_.live().meets(page, pages_bytes) && !ranges_.meets(page, pages_bytes));
    if (ranges_.bytes() + static_cast<int64_t>(bytes) > pin_bytes_)
      return "the fake device pins no more";
    ranges_.add(memory, bytes);
    return "";
  }
  void* new_stream() override {
    streams_.push_back(new FakeStream);
    // As the kernels take it: a pointer to the part that they know.
    return static_cast<EmulatedStream*>(streams_.back());
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
    FakeStream* fake = static_cast<FakeStream*>(static_cast<EmulatedStream*>(stream));
    std::erase(streams_, fake);
    delete fake;
  }
  void free_event(void* event) noexcept override {
    synchronize();
    delete static_cast<FakeEvent*>(event);
  }

  void begin_capture(const Stream& stream) override {
    capture_ = std::make_unique<FakeGraph>(++captures_, of(stream));
  }
  void* end_capture(const Stream&) override {
    HEARTH_CHECK(capture_->joined());
    capture_->leave();
    for (const auto& lane : capture_->lanes()) streams_.push_back(lane.get());
    return capture_.release();
  }
  void drop_capture(const Stream&) noexcept override {
    capture_->leave();
    capture_.reset();
  }
  void free_graph(void* graph) noexcept override {
    synchronize();
    FakeGraph* fake = static_cast<FakeGraph*>(graph);
    for (const auto& lane : fake->lanes()) std::erase(streams_, lane.get());
    delete fake;
  }

 private:
  static FakeStream* of(const Stream& stream) {
    return static_cast<FakeStream*>(static_cast<EmulatedStream*>(stream.get()));
  }
  static FakeEvent* of(const Event& event) { return static_cast<FakeEvent*>(event.get()); }

  void note_host(const void* memory, size_t bytes, const Stream& stream) {
    if (pinned_.live().holds(memory, bytes) || ranges_.holds(memory, bytes)) return;
    HEARTH_CHECK(!pinned_.live().meets(memory, bytes) && !ranges_.meets(memory, bytes));
    HEARTH_CHECK(of(stream)->capture == nullptr || bytes == 0);
    ++unpinned_copies_;
  }

  static void copy(void* to, const void* from, size_t bytes, const Stream& stream) {
    if (bytes > 0) of(stream)->enqueue([=] { std::memcpy(to, from, bytes); });
  }

  bool all_empty() const {
    return std::all_of(streams_.begin(), streams_.end(), [](auto* one) { return one->empty(); });
  }

  // One entry of any stream whose turn it can be. There is always one: an event is recorded before
  // it is waited for.
  void run_one() {
    std::vector<FakeStream*> can_run;
    for (FakeStream* stream : streams_) {
      if (stream->can_run()) can_run.push_back(stream);
    }
    HEARTH_CHECK(!can_run.empty());
    can_run[random_() % can_run.size()]->run_one();
  }

  std::string name_ = "fake GPU";
  FakeMemory memory_;
  FakeMemory pinned_;
  ByteRanges ranges_;        // pinned by pin()
  const size_t page_bytes_;  // of ranges
  const int64_t pin_bytes_;
  int64_t unpinned_copies_ = 0;
  std::mt19937_64 random_;
  std::vector<FakeStream*> streams_;  // ours, and those within graphs
  uint64_t captures_ = 0;
  std::unique_ptr<FakeGraph> capture_;  // where one is going on
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
