// A disk or a link on a virtual clock: transfers follow each other, as fast as it goes.
#pragma once

#include <algorithm>

#include "base/check.h"

namespace hearth {

class TransferQueue {
 public:
  // `latency`: seconds a transfer takes beyond its share of the bandwidth, while others go on.
  TransferQueue(double bytes_per_second, double latency)
      : bytes_per_second_(bytes_per_second), latency_(latency) {}

  // When a transfer asked for at `now` has arrived; `now` must not go back from call to call. The
  // queue stands still for `stall` seconds before it.
  double submit(double now, double bytes, double stall = 0) {
    HEARTH_CHECK(bytes_per_second_ > 0);
    free_at_ = std::max(free_at_, now) + stall + bytes / bytes_per_second_;
    const double arrived = free_at_ + latency_;
    busy_ += arrived - std::max(now, busy_until_);
    busy_until_ = arrived;
    bytes_ += bytes;
    return arrived;
  }

  double free_at() const { return free_at_; }
  double bytes() const { return bytes_; }        // since start or restart of counting
  double busy_seconds() const { return busy_; }  // with a transfer in flight
  void restart_counting() { bytes_ = busy_ = 0; }

 private:
  const double bytes_per_second_, latency_;
  double free_at_ = 0;
  double busy_until_ = 0;
  double bytes_ = 0, busy_ = 0;
};

}  // namespace hearth
