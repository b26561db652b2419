// HEARTH_CHECK: an invariant of our own code, tested in every build. A failure is a bug, never bad
// input.
#pragma once

namespace hearth {

[[noreturn]] void check_failed(const char* condition, const char* file, int line) noexcept;

}  // namespace hearth

#define HEARTH_CHECK(condition) \
  ((condition) ? (void)0 : ::hearth::check_failed(#condition, __FILE__, __LINE__))
