// Finds stop strings in text that arrives in parts: hands on what can no longer belong to one. The
// result does not depend on the cut.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hearth {

class StopMatcher {
 public:
  // Empty strings are ignored.
  explicit StopMatcher(const std::vector<std::string>& stops);

  // The text that is certain now. Held back: the longest suffix that begins a stop string. The
  // first stop string that is complete ends the text in front of it; the longest, where several are
  // complete at once.
  std::string feed(std::string_view text);
  // The end: what was held back.
  std::string finish();
  void reset();

  // Null before a stop string was found.
  const std::string* matched() const { return found_ == kNone ? nullptr : &stops_[found_].text; }

 private:
  struct Stop {
    std::string text;
    std::vector<size_t>
        shorter;  // by bytes matched: how many still match when the next byte does not
    size_t matched = 0;

    void advance(char byte);
  };
  std::vector<Stop> stops_;
  std::string held_;
  static constexpr size_t kNone = SIZE_MAX;
  size_t found_ = kNone;  // the stop string that was complete first
};

}  // namespace hearth
