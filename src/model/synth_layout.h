// What stands in a synthetic model file, before a byte of it is made: keys, tensors, and how each
// is drawn.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/tensor_type.h"
#include "model/synth.h"
#include "model/synth_keys.h"

namespace hearth {

enum class SynthContent {
  kWeights,    // around `mean`, `spread` from it in the root mean square
  kEmbedding,  // with the directions that token ranges share
  kHashTable,  // experts of each token, distinct
};

struct SynthTensor {
  std::string name;
  TensorType type;
  std::vector<int64_t> dims;  // fastest first
  SynthContent content = SynthContent::kWeights;
  float mean = 0;
  float spread = 0;
  bool hole = false;

  int64_t rows() const;  // of dims[0] values
  int64_t row_bytes() const;
  int64_t bytes() const { return rows() * row_bytes(); }
};

struct SynthLayout {
  SynthShape shape;  // as asked for: with the layers and experts that the options name
  SynthKeys keys;
  std::vector<SynthTensor> tensors;  // in file order
  int64_t weight_bytes = 0;          // of all tensors
  int64_t written_bytes = 0;         // of those that are no holes
};

// Throws a usage Error for options that make no model, an Error where `vocabulary` holds no
// tokenizer.
SynthLayout synth_layout(const SynthOptions& options);

}  // namespace hearth
