// Finds added tokens in text: leftmost first, the longest where several begin at one place (spec
// chat.md 1.2 step 1). Immutable once built; safe from several threads.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace hearth {

class TokenMatcher {
 public:
  // Bounds the steps per byte of text: matching restarts at each position.
  static constexpr size_t kTokenBytesMax = 256;

  // `token`: 1 to kTokenBytesMax bytes.
  void add(std::string_view token, int32_t id);

  struct Match {
    size_t begin;  // text.size() where nothing was found
    size_t bytes;
    int32_t id;
  };
  // The first match at or after `start`.
  Match find(std::string_view text, size_t start) const;

 private:
  struct Longest {
    size_t bytes = 0;
    int32_t id = -1;
  };
  Longest longest_at(std::string_view text) const;

  // A trie: children by (node, byte); node 0 is the root; a token's id stands at its last node,
  // else -1.
  std::unordered_map<uint64_t, int32_t> children_;
  std::vector<int32_t> ids_{-1};
  std::array<bool, 256> starts_{};
};

}  // namespace hearth
