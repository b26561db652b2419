// Makes the rows of one tensor of a synthetic model. A row depends on the options, the tensor's
// name and the row's index only, so rows may be made in any order by any number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "model/synth_blocks.h"
#include "model/synth_layout.h"

namespace hearth {

class SynthRows {
 public:
  // `tensor` must outlive the object.
  SynthRows(const SynthShape& shape, const SynthTensor& tensor, uint64_t seed, double skew);

  void fill(int64_t row_begin, int64_t row_end, unsigned char* out) const;

 private:
  void fill_embedding(int64_t token, const RandomWords& words, unsigned char* out) const;
  void fill_hash(const RandomWords& words, unsigned char* out) const;

  const SynthTensor& tensor_;
  int32_t experts_;
  int32_t vocab_;
  RandomWords words_;
  RandomBlocks blocks_;       // kWeights
  float own_ = 0;             // kEmbedding: codes reach this far without the shared direction
  float shared_ = 0;          // kEmbedding: and this is what the direction adds or takes
  uint16_t scale_ = 0;        // kEmbedding: of all blocks, a half float
  std::vector<float> signs_;  // kEmbedding: [kSynthTokenRanges, dim] of +1 and -1
};

}  // namespace hearth
