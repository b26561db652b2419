// Ctrl-C ends what is being computed, not the program.
#pragma once

namespace hearth::cli {

// While one lives, an interrupt only sets a flag. One at a time; the flag is clear at the start.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  bool requested() const;
  void clear();
};

}  // namespace hearth::cli
