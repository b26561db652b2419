#include "offload/store/expert_slots.h"

#include <algorithm>

#include "base/hash.h"

namespace hearth {
namespace {

constexpr int64_t kBlock = Reader::kAlignment;

std::array<Matrix, 3> stacks_of(const LayerExperts& layer) {
  return {layer.stacks.gate, layer.stacks.up, layer.stacks.down};
}

int64_t matrix_bytes(const Matrix& stack, int32_t experts) {
  return stack.rows / experts * row_bytes(stack.type, stack.cols);
}

}  // namespace

int64_t slot_part_bytes(int64_t matrix_bytes) {
  return Reader::padded_bytes(kBlock - 1, matrix_bytes);
}

SlotParts::SlotParts(std::span<const LayerExperts> layers, int32_t experts) : at{}, bytes(0) {
  std::array<int64_t, 3> most{};
  for (const LayerExperts& layer : layers) {
    const std::array<Matrix, 3> stacks = stacks_of(layer);
    for (int m = 0; m < 3; ++m) most[m] = std::max(most[m], matrix_bytes(stacks[m], experts));
  }
  for (int m = 0; m < 3; ++m) {
    at[m] = bytes;
    bytes += slot_part_bytes(most[m]);
  }
}

ExpertSlots::ExpertSlots(std::vector<LayerExperts> layers, int32_t experts, int64_t slots,
                         const Topology& topology, const NodeShares& shares)
    : layers_(std::move(layers)),
      experts_(experts),
      count_(slots),
      parts_(layers_, experts),
      memory_(static_cast<size_t>(slots * parts_.bytes)) {
  // Every part is a range of its own to the kernel, which knows 65530 of them at most.
  constexpr int64_t kRangesMax = 32768;
  const int nodes = shares.nodes();
  if (nodes > 1 && count_ * 3 * nodes <= kRangesMax) bind_to_nodes(topology, shares);
}

// Where a matrix begins within its room differs by up to a block, and its rows with it.
void ExpertSlots::bind_to_nodes(const Topology& topology, const NodeShares& shares) {
  for (int64_t slot = 0; slot < count_; ++slot) {
    for (int m = 0; m < 3; ++m) {
      const int64_t end = m < 2 ? parts_.at[m + 1] : parts_.bytes;
      const int64_t blocks = (end - parts_.at[m]) / kBlock;
      unsigned char* room = memory_.data() + slot * parts_.bytes + parts_.at[m];
      for (int node = 0; node < shares.nodes(); ++node) {
        const int64_t first = shares.begin(blocks, node), last = shares.begin(blocks, node + 1);
        topology.bind_memory(room + first * kBlock, static_cast<size_t>((last - first) * kBlock),
                             node);
      }
    }
  }
}

std::array<ReadRequest, 3> ExpertSlots::reads(int32_t layer, int32_t expert, int32_t slot) const {
  const std::array<Matrix, 3> stacks = stacks_of(layers_[layer]);
  std::array<ReadRequest, 3> requests{};
  for (int m = 0; m < 3; ++m) {
    const StackPlace& place = layers_[layer].places[m];
    const int64_t bytes = matrix_bytes(stacks[m], experts_);
    requests[m] = {.file = place.file,
                   .offset = place.offset + expert * bytes,
                   .bytes = bytes,
                   .to = memory_.data() + slot * parts_.bytes + parts_.at[m],
                   .tag = 0};
  }
  return requests;
}

std::array<Matrix, 3> ExpertSlots::matrices(int32_t layer, int32_t expert, int32_t slot) const {
  const std::array<ReadRequest, 3> requests = reads(layer, expert, slot);
  std::array<Matrix, 3> result = stacks_of(layers_[layer]);
  for (int m = 0; m < 3; ++m) {
    result[m].rows /= experts_;
    result[m].data = requests[m].to + requests[m].offset % kBlock;
  }
  return result;
}

ExpertWeights ExpertSlots::weights(int32_t layer, int32_t expert, int32_t slot) const {
  const std::array<Matrix, 3> m = matrices(layer, expert, slot);
  return {m[0], m[1], m[2]};
}

uint64_t ExpertSlots::checksum(int32_t layer, int32_t expert, int32_t slot) const {
  ResultHash hash;
  for (const Matrix& matrix : matrices(layer, expert, slot)) {
    hash.add(std::span(matrix.data, matrix.rows * row_bytes(matrix.type, matrix.cols)));
  }
  return hash.value();
}

}  // namespace hearth
