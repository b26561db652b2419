#include "device/fake_stream.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/check.h"

namespace hearth {

void FakeStream::enqueue(std::function<void()> work) {
  if (capture != nullptr) return capture->add_work(this, std::move(work));
  queue_.push_back({std::move(work)});
}

void FakeStream::record(FakeEvent* event) {
  if (capture != nullptr) return capture->add_record(this, event);
  event->capture = 0;
  const uint64_t number = ++event->recorded;
  queue_.push_back({[=] {
    event->reached = number;
    event->reached_at = std::chrono::steady_clock::now();
  }});
}

void FakeStream::wait(FakeEvent* event) {
  if (capture != nullptr) return capture->add_wait(this, event);
  HEARTH_CHECK(event->capture == 0);
  queue_.push_back({[] {}, event, event->recorded});
}

bool FakeStream::can_run() const {
  if (queue_.empty()) return false;
  const Entry& next = queue_.front();
  return next.event == nullptr || next.event->reached >= next.record;
}

void FakeStream::run_one() {
  const Entry entry = std::move(queue_.front());
  queue_.pop_front();
  entry.work();
}

void FakeGraph::join(FakeStream* stream) {
  if (stream->capture == this) return;
  stream->capture = this;
  captured_.push_back(stream);
  if (captured_.size() > 1) lanes_.push_back(std::make_unique<FakeStream>());
}

void FakeGraph::add_work(const FakeStream* stream, std::function<void()> work) {
  steps_.push_back({lane_of(stream), std::move(work)});
}

void FakeGraph::add_record(const FakeStream* stream, FakeEvent* event) {
  event->capture = number_;
  steps_.push_back({lane_of(stream), {}, &events_[event]});
}

void FakeGraph::add_wait(const FakeStream* stream, FakeEvent* event) {
  HEARTH_CHECK(event->capture == number_);
  steps_.push_back({lane_of(stream), {}, nullptr, &events_[event]});
}

void FakeGraph::leave() {
  for (FakeStream* stream : captured_) stream->capture = nullptr;
  captured_.clear();
}

bool FakeGraph::joined() const {
  // From the end: a stream's work is waited for before a record that somebody waited for, who was
  // waited for at that time.
  std::set<size_t> lanes = {0};
  std::set<const FakeEvent*> awaited;
  for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
    if (step->recorded != nullptr) {
      if (awaited.erase(step->recorded) > 0) lanes.insert(step->lane);
    } else if (!lanes.contains(step->lane)) {
      if (step->awaited == nullptr) return false;
    } else if (step->awaited != nullptr) {
      awaited.insert(step->awaited);
    }
  }
  return true;
}

void FakeGraph::launch(FakeStream* stream) {
  stream->wait(&launched_);
  for (const Step& step : steps_) {
    FakeStream* lane = step.lane == 0 ? stream : lanes_[step.lane - 1].get();
    if (step.recorded != nullptr) {
      lane->record(step.recorded);
    } else if (step.awaited != nullptr) {
      lane->wait(step.awaited);
    } else {
      lane->enqueue(step.work);
    }
  }
  stream->record(&launched_);
}

size_t FakeGraph::lane_of(const FakeStream* stream) const {
  const auto found = std::find(captured_.begin(), captured_.end(), stream);
  HEARTH_CHECK(found != captured_.end());
  return static_cast<size_t>(found - captured_.begin());
}

}  // namespace hearth
