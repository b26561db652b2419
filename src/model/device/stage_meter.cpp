#include "model/device/stage_meter.h"

#include "base/check.h"

namespace hearth {

void StageMeter::begin_step() {
  stage_.reset();
  placed_ = 0;
}

void StageMeter::place(std::optional<Stage> stage) {
  if (stage == stage_) return;
  stage_ = stage;
  if (!timing_) return;
  if (placed_ == marks_.size()) marks_.push_back({device_.create_event(EventTiming::kOn), {}});
  Mark& mark = marks_[placed_++];
  mark.stage = stage;
  device_.record(mark.event, stream_);
}

StageTotals& StageMeter::totals() {
  HEARTH_CHECK(stage_.has_value());
  return clock_[*stage_];
}

void StageMeter::end_step() {
  pause();
  if (placed_ == 0) return;
  device_.synchronize(marks_[placed_ - 1].event);
  for (size_t i = 0; i + 1 < placed_; ++i) {
    const Mark &mark = marks_[i], &next = marks_[i + 1];
    if (!mark.stage) continue;
    clock_[*mark.stage].seconds += device_.seconds_between(mark.event, next.event);
  }
}

}  // namespace hearth
