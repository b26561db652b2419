// The vocabulary of a model file, read and checked (spec chat.md 1.4, 1.5, 1.7): what each token
// decodes to, which tokens are added ones, and the merges as ids.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "format/tensor_dir.h"
#include "text/bpe.h"

namespace hearth {

struct Vocabulary {
  struct Token {
    std::string bytes;  // what it decodes to; for an added token its literal text
    bool is_added;  // control or user-defined: matched in text as a whole, never made by merging
  };
  std::vector<Token> tokens;          // by id
  std::array<int32_t, 256> byte_ids;  // the token of each single byte
  std::vector<Merge> merges;          // by rank
  int32_t bos;
  int32_t eos;
};

// Throws one Error that lists every problem of the vocabulary; `source` names the file in it.
Vocabulary read_vocabulary(const TensorDir& dir, const std::string& source);

}  // namespace hearth
