// Which stage the work of a step belongs to, and the time it takes on the device: what is enqueued
// from one mark to the next belongs to the first.
//
// Bytes and flops are counted where the work is enqueued. Times are taken only on demand, as an
// event at each mark holds up the device a little and captured work can't have any.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "device/device.h"
#include "model/stages.h"

namespace hearth {

class StageMeter {
 public:
  // Both must outlive the object.
  StageMeter(Device& device, const Stream& stream) : device_(device), stream_(stream) {}

  // Between steps.
  void set_timing(bool on) { timing_ = on; }
  bool timing() const { return timing_; }
  StageClock& clock() { return clock_; }

  void begin_step();
  void mark(Stage stage) { place(stage); }
  // What follows, up to the next mark, belongs to none: the device waits for the host.
  void pause() { place(std::nullopt); }
  // Of the stage marked last.
  StageTotals& totals();
  // With timing, waits for the step's work and adds its time to the clock. A step that does not
  // come here adds none.
  void end_step();

 private:
  struct Mark {
    Event event;
    std::optional<Stage> stage;
  };
  void place(std::optional<Stage> stage);

  Device& device_;
  const Stream& stream_;
  bool timing_ = false;
  StageClock clock_;
  std::optional<Stage> stage_;
  std::vector<Mark> marks_;  // their events serve every step
  size_t placed_ = 0;        // of this step
};

}  // namespace hearth
