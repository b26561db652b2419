// Memory for experts that are read from their files: slots of one size, each with room for the
// three matrices of any expert as the file has them, with what lies around them in whole blocks of
// the disk. Kernels read weights as they are stored, so nothing is converted.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "base/workers.h"
#include "offload/io/reader.h"
#include "offload/machine/topology.h"
#include "offload/store/expert_weights.h"

namespace hearth {

// Bytes that a matrix of so many takes in a slot, wherever it begins in its file.
int64_t slot_part_bytes(int64_t matrix_bytes);

// One layer's three matrices of an expert each: bytes of a slot that takes any of them.
struct SlotParts {
  explicit SlotParts(std::span<const LayerExperts> layers, int32_t experts);
  std::array<int64_t, 3> at;  // of each matrix's room from the slot's begin
  int64_t bytes;              // of a slot
};

class ExpertSlots {
 public:
  // Takes the memory, rows of every matrix on the node whose threads multiply them.
  // Throws Error where it is refused.
  ExpertSlots(std::vector<LayerExperts> layers, int32_t experts, int64_t slots,
              const Topology& topology, const NodeShares& shares);

  int64_t count() const { return count_; }
  int64_t bytes() const { return static_cast<int64_t>(memory_.bytes()); }
  std::span<unsigned char> memory() const { return {memory_.data(), memory_.bytes()}; }
  // Keeps it from being paged out; false where the system doesn't let this user.
  bool lock() { return memory_.lock(); }

  // The file that a layer's gate, up or down matrices lie in.
  int32_t file(int32_t layer, int part) const { return layers_[layer].places[part].file; }
  // The reads that bring an expert into a slot, a matrix each.
  std::array<ReadRequest, 3> reads(int32_t layer, int32_t expert, int32_t slot) const;
  // The expert there.
  ExpertWeights weights(int32_t layer, int32_t expert, int32_t slot) const;
  // Of all of its bytes.
  uint64_t checksum(int32_t layer, int32_t expert, int32_t slot) const;

 private:
  std::array<Matrix, 3> matrices(int32_t layer, int32_t expert, int32_t slot) const;
  void bind_to_nodes(const Topology& topology, const NodeShares& shares);

  const std::vector<LayerExperts> layers_;
  const int32_t experts_;
  const int64_t count_;
  const SlotParts parts_;
  Buffer memory_;
};

}  // namespace hearth
