// Steps that repeat: a step's work is captured when its like comes the second time, and launched
// from then on. Launching a captured piece costs the host as much as one kernel does.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/tensor_type.h"
#include "device/device.h"
#include "model/stages.h"

namespace hearth {

// What the kernels of a step and their parameters follow from. Steps of one kind differ in memory
// that the kernels read, in nothing else.
struct StepKind {
  int64_t n;
  int64_t sequences;
  int64_t wanted;
  int64_t index_entries;  // as of DeviceBatch
  KvType kv_type;
  std::vector<bool> has_gap;  // [layers] whether some of a layer's experts lie elsewhere

  bool operator==(const StepKind&) const = default;
};

class Replay {
 public:
  // All must outlive the object. What a piece adds to `clock` when it is captured is added again
  // each time it is launched.
  Replay(Device& device, const Stream& stream, StageClock& clock)
      : device_(device), stream_(stream), clock_(clock) {}

  // Before the first piece of a step. Steps that are not `repeats` are only enqueued.
  void begin(const StepKind& kind, bool repeats);
  // The next piece: `enqueue` puts it into the stream, or what it put there before is launched.
  // Pieces of one kind of step follow each other in one order; events are recorded between them.
  // `instead`: what goes into the stream this once, in a step that differs there.
  void piece(const std::function<void()>& enqueue, const std::function<void()>& instead = nullptr);
  // After the last piece; a step that does not come here is not launched again.
  void end();

 private:
  enum class Mode { kEnqueue, kCapture, kLaunch };
  struct Piece {
    DeviceGraph graph;
    StageClock work;
  };
  struct Recording {
    StepKind kind;
    std::vector<Piece> pieces;
    int64_t used_at;  // step
  };
  Recording* find(const StepKind& kind);

  Device& device_;
  const Stream& stream_;
  StageClock& clock_;
  Mode mode_ = Mode::kEnqueue;
  std::vector<Recording> recordings_;
  Recording* current_ = nullptr;
  size_t next_piece_ = 0;
  StepKind last_{};  // of the step before
  int64_t steps_ = 0;
};

}  // namespace hearth
