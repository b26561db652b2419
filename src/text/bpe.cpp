#include "text/bpe.h"

#include <algorithm>

#include "base/check.h"

namespace hearth {
namespace {

constexpr int32_t kGone = -1;
constexpr int32_t kNone = -1;

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

Bpe::Bpe(const std::array<int32_t, 256>& byte_ids, const std::vector<Merge>& merges)
    : byte_ids_(byte_ids) {
  ranked_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const Merge& merge = merges[rank];
    const Ranked ranked{static_cast<int32_t>(rank), merge.merged};
    HEARTH_CHECK(ranked_.emplace(pair_key(merge.left, merge.right), ranked).second);
  }
}

const Bpe::Ranked* Bpe::find(int32_t left, int32_t right) const {
  const auto found = ranked_.find(pair_key(left, right));
  return found == ranked_.end() ? nullptr : &found->second;
}

namespace {

// Heap order: the lowest rank on top, among equal ranks the leftmost.
constexpr auto kWorse = [](const auto& a, const auto& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
};

}  // namespace

// Puts the pair of the symbol at `left` and its right neighbour on the heap, where it can be
// merged.
void Bpe::propose(int32_t left, Scratch& scratch) const {
  const Scratch::Symbol& symbol = scratch.symbols_[static_cast<size_t>(left)];
  if (symbol.next == kNone) return;
  const int32_t right_id = scratch.symbols_[static_cast<size_t>(symbol.next)].id;
  const Ranked* ranked = find(symbol.id, right_id);
  if (!ranked) return;
  scratch.heap_.push_back({ranked->rank, left, symbol.id, right_id});
  std::push_heap(scratch.heap_.begin(), scratch.heap_.end(), kWorse);
}

void Bpe::apply(const Scratch::Candidate& candidate, Scratch& scratch) const {
  std::vector<Scratch::Symbol>& symbols = scratch.symbols_;
  Scratch::Symbol& left = symbols[static_cast<size_t>(candidate.left)];
  if (left.id != candidate.left_id || left.next == kNone) return;
  Scratch::Symbol& right = symbols[static_cast<size_t>(left.next)];
  if (right.id != candidate.right_id) return;

  left.id = find(left.id, right.id)->merged;
  right.id = kGone;
  left.next = right.next;
  if (left.next != kNone) symbols[static_cast<size_t>(left.next)].previous = candidate.left;
  if (left.previous != kNone) propose(left.previous, scratch);
  propose(candidate.left, scratch);
}

void Bpe::encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& out) const {
  HEARTH_CHECK(piece.size() <= kPieceBytesMax);
  const auto count = static_cast<int32_t>(piece.size());
  scratch.symbols_.clear();
  scratch.heap_.clear();
  for (int32_t i = 0; i < count; ++i) {
    const auto byte = static_cast<unsigned char>(piece[static_cast<size_t>(i)]);
    scratch.symbols_.push_back({byte_ids_[byte], i - 1, i + 1 < count ? i + 1 : kNone});
  }
  for (int32_t i = 0; i + 1 < count; ++i) propose(i, scratch);

  while (!scratch.heap_.empty()) {
    std::pop_heap(scratch.heap_.begin(), scratch.heap_.end(), kWorse);
    const Scratch::Candidate best = scratch.heap_.back();
    scratch.heap_.pop_back();
    apply(best, scratch);
  }
  for (int32_t i = count > 0 ? 0 : kNone; i != kNone;
       i = scratch.symbols_[static_cast<size_t>(i)].next) {
    out.push_back(scratch.symbols_[static_cast<size_t>(i)].id);
  }
}

}  // namespace hearth
