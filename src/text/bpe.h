// Byte-pair merging (spec chat.md 1.2 step 4): repeatedly join the adjacent pair of lowest rank,
// leftmost first. A heap over a linked list keeps pieces of any length at n log n. Immutable once
// built; safe from several threads.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace hearth {

struct Merge {
  int32_t left;  // token ids
  int32_t right;
  int32_t merged;
};

class Bpe {
 public:
  // `byte_ids`: the token of each single byte. `merges` by rank, no pair twice.
  Bpe(const std::array<int32_t, 256>& byte_ids, const std::vector<Merge>& merges);

  // Memory that one thread keeps from piece to piece.
  class Scratch {
    friend class Bpe;
    struct Symbol {
      int32_t id;  // kGone once it was joined to the symbol on its left
      int32_t previous;
      int32_t next;
    };
    struct Candidate {
      int32_t rank;
      int32_t left;  // positions in symbols_
      int32_t
          left_id;  // the pair as it was found: a candidate is stale once either side has changed
      int32_t right_id;
    };
    std::vector<Symbol> symbols_;
    std::vector<Candidate> heap_;
  };

  // Appends the ids of one piece of at most kPieceBytesMax bytes.
  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& out) const;

  static constexpr size_t kPieceBytesMax = 1u << 30;  // positions are 32 bits

 private:
  struct Ranked {
    int32_t rank;
    int32_t merged;
  };
  const Ranked* find(int32_t left, int32_t right) const;
  void propose(int32_t left, Scratch& scratch) const;
  void apply(const Scratch::Candidate& candidate, Scratch& scratch) const;

  std::array<int32_t, 256> byte_ids_;
  std::unordered_map<uint64_t, Ranked> ranked_;  // by pair
};

}  // namespace hearth
