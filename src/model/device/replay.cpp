#include "model/device/replay.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace hearth {
namespace {

constexpr size_t kRecordingsMax = 8;  // graphs take memory of the device

}  // namespace

Replay::Recording* Replay::find(const StepKind& kind) {
  const auto same = std::ranges::find(recordings_, kind, &Recording::kind);
  return same == recordings_.end() ? nullptr : &*same;
}

void Replay::begin(const StepKind& kind, bool repeats) {
  if (mode_ == Mode::kCapture) recordings_.pop_back();  // it did not come to its end
  mode_ = Mode::kEnqueue;
  next_piece_ = 0;
  ++steps_;
  if (!repeats) return;
  const bool is_second = kind == last_;
  last_ = kind;
  current_ = find(kind);
  if (current_ != nullptr) {
    mode_ = Mode::kLaunch;
  } else if (is_second) {
    if (recordings_.size() == kRecordingsMax) {
      recordings_.erase(std::ranges::min_element(recordings_, {}, &Recording::used_at));
    }
    recordings_.push_back({kind, {}, steps_});
    current_ = &recordings_.back();
    mode_ = Mode::kCapture;
  } else {
    return;
  }
  current_->used_at = steps_;
}

void Replay::piece(const std::function<void()>& enqueue, const std::function<void()>& instead) {
  if (mode_ == Mode::kEnqueue) {
    (instead ? instead : enqueue)();
    return;
  }
  if (mode_ == Mode::kCapture) {
    const StageClock before = clock_;
    DeviceGraph graph = device_.capture(stream_, enqueue);
    current_->pieces.push_back({std::move(graph), clock_ - before});
    if (instead) clock_ = before;
  }
  HEARTH_CHECK(next_piece_ < current_->pieces.size());
  const Piece& piece = current_->pieces[next_piece_++];
  if (instead) {
    instead();
    return;
  }
  if (mode_ == Mode::kLaunch) clock_ += piece.work;
  device_.launch(piece.graph, stream_);
}

void Replay::end() {
  HEARTH_CHECK(mode_ == Mode::kEnqueue || next_piece_ == current_->pieces.size());
  mode_ = Mode::kEnqueue;
}

}  // namespace hearth
