#include "text/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace hearth {

StopMatcher::StopMatcher(const std::vector<std::string>& stops) {
  for (const std::string& text : stops) {
    if (text.empty()) continue;
    Stop stop{text, {0}};
    // Matching the string against itself, one byte late, tells its borders.
    for (size_t i = 1; i < text.size(); ++i) {
      stop.shorter.push_back(stop.matched);
      stop.advance(text[i]);
    }
    stop.matched = 0;
    stops_.push_back(std::move(stop));
  }
}

void StopMatcher::Stop::advance(char byte) {
  while (matched > 0 && text[matched] != byte) matched = shorter[matched];
  if (text[matched] == byte) ++matched;
}

std::string StopMatcher::feed(std::string_view text) {
  if (matched()) return {};
  for (const char byte : text) {
    held_ += byte;
    for (size_t i = 0; i < stops_.size(); ++i) {
      Stop& stop = stops_[i];
      stop.advance(byte);
      const bool is_complete = stop.matched == stop.text.size();
      if (is_complete && (!matched() || stop.text.size() > matched()->size())) found_ = i;
    }
    if (matched()) {
      held_.resize(held_.size() - matched()->size());
      return finish();
    }
  }
  size_t kept = 0;
  for (const Stop& stop : stops_) kept = std::max(kept, stop.matched);
  std::string out = held_.substr(0, held_.size() - kept);
  held_.erase(0, out.size());
  return out;
}

std::string StopMatcher::finish() { return std::exchange(held_, {}); }

void StopMatcher::reset() {
  held_.clear();
  for (Stop& stop : stops_) stop.matched = 0;
}

}  // namespace hearth
