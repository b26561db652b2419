// Streams and events of the fake device, and graphs of what went into streams.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "device/device.h"
#include "gpu_kernels/emulation/stream.h"

namespace hearth {

class FakeGraph;

struct FakeEvent {
  EventTiming timing = EventTiming::kOff;
  uint64_t capture = 0;   // the one it was last recorded in; 0: in none
  uint64_t recorded = 0;  // how often
  uint64_t reached = 0;   // the latest record that is done
  std::chrono::steady_clock::time_point reached_at{};
};

class FakeStream final : public EmulatedStream {
 public:
  // These go into `capture` where there is one.
  void enqueue(std::function<void()> work) override;
  void record(FakeEvent* event);
  void wait(FakeEvent* event);

  bool empty() const { return queue_.empty(); }
  bool can_run() const;
  void run_one();

  FakeGraph* capture = nullptr;

 private:
  // Work, which stands back while `event` has not reached `record`. Records and waits are entries
  // as well.
  struct Entry {
    std::function<void()> work;
    const FakeEvent* event = nullptr;
    uint64_t record = 0;
  };
  std::deque<Entry> queue_;
};

// What a stream was given, and streams that waited for it, in the order of the calls. A launch
// makes the same calls again, with events and further streams of its own.
class FakeGraph {
 public:
  FakeGraph(uint64_t number, FakeStream* origin) : number_(number) { join(origin); }

  uint64_t number() const { return number_; }
  void join(FakeStream* stream);
  void add_work(const FakeStream* stream, std::function<void()> work);
  void add_record(const FakeStream* stream, FakeEvent* event);
  void add_wait(const FakeStream* stream, FakeEvent* event);
  // The streams take work as before.
  void leave();
  // Whether the first stream has waited for all work of the others.
  bool joined() const;

  void launch(FakeStream* stream);
  // Where a launch puts the work of the others.
  const std::vector<std::unique_ptr<FakeStream>>& lanes() const { return lanes_; }

 private:
  struct Step {   // one of the three
    size_t lane;  // 0: of the first stream
    std::function<void()> work;
    FakeEvent* recorded = nullptr;
    FakeEvent* awaited = nullptr;
  };
  size_t lane_of(const FakeStream* stream) const;

  uint64_t number_;
  std::vector<FakeStream*> captured_;               // by lane, while it is captured
  std::vector<std::unique_ptr<FakeStream>> lanes_;  // from lane 1
  std::map<const FakeEvent*, FakeEvent> events_;    // by the event that was recorded
  std::vector<Step> steps_;
  FakeEvent launched_;  // the launches, one after the other
};

}  // namespace hearth
