#include "text/token_matcher.h"

#include "base/check.h"

namespace hearth {
namespace {

uint64_t child_key(int32_t node, char byte) {
  return static_cast<uint64_t>(node) << 8 | static_cast<unsigned char>(byte);
}

}  // namespace

void TokenMatcher::add(std::string_view token, int32_t id) {
  HEARTH_CHECK(!token.empty() && token.size() <= kTokenBytesMax);
  starts_[static_cast<unsigned char>(token[0])] = true;
  int32_t node = 0;
  for (const char byte : token) {
    const auto [child, added] =
        children_.emplace(child_key(node, byte), static_cast<int32_t>(ids_.size()));
    if (added) ids_.push_back(-1);
    node = child->second;
  }
  ids_[static_cast<size_t>(node)] = id;
}

TokenMatcher::Longest TokenMatcher::longest_at(std::string_view text) const {
  Longest longest;
  int32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto child = children_.find(child_key(node, text[i]));
    if (child == children_.end()) break;
    node = child->second;
    if (const int32_t id = ids_[static_cast<size_t>(node)]; id >= 0) longest = {i + 1, id};
  }
  return longest;
}

TokenMatcher::Match TokenMatcher::find(std::string_view text, size_t start) const {
  for (size_t i = start; i < text.size(); ++i) {
    if (!starts_[static_cast<unsigned char>(text[i])]) continue;
    const Longest longest = longest_at(text.substr(i));
    if (longest.bytes > 0) return {i, longest.bytes, longest.id};
  }
  return {text.size(), 0, -1};
}

}  // namespace hearth
