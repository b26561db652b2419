#include "model/synth_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string_view>

#include "base/check.h"
#include "format/dequantize.h"

namespace hearth {
namespace {

constexpr int kQ8Block = 32;

// FNV-1a, 64 bits.
uint64_t hash_name(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const unsigned char c : name) hash = (hash ^ c) * 0x100000001b3;
  return hash;
}

// The share of the common direction in an embedding, as a part of its length.
double shared_part(double skew) { return skew / std::sqrt(skew * skew + 0.4); }

std::vector<float> random_signs(const RandomWords& words, int64_t count) {
  std::vector<float> signs(static_cast<size_t>(count));
  for (size_t i = 0; i < signs.size(); ++i) signs[i] = words[i / 64] >> (i % 64) & 1 ? 1.0f : -1.0f;
  return signs;
}

}  // namespace

SynthRows::SynthRows(const SynthShape& shape, const SynthTensor& tensor, uint64_t seed, double skew)
    : tensor_(tensor),
      experts_(shape.experts),
      vocab_(shape.vocab),
      words_(RandomWords(seed).child(hash_name(tensor.name))),
      blocks_(tensor.content == SynthContent::kWeights ? tensor.type : TensorType::kF32,
              tensor.mean, tensor.spread) {
  if (tensor.content != SynthContent::kEmbedding) return;
  HEARTH_CHECK(tensor.type == TensorType::kQ8_0);
  // Uniform numbers of [-1, 1] have variance 1/3. The codes use their whole range and have the
  // variance 1 / scale^2.
  const double shared = shared_part(skew);
  const double own = std::sqrt(3 * (1 - shared * shared));
  const double codes = 127 / (own + shared);
  own_ = static_cast<float>(own * codes);
  shared_ = static_cast<float>(shared * codes);
  scale_ = float_to_half(static_cast<float>(1 / codes));
  signs_ = random_signs(words_.child(0), kSynthTokenRanges * tensor.dims[0]);
}

void SynthRows::fill(int64_t row_begin, int64_t row_end, unsigned char* out) const {
  const int64_t bytes = tensor_.row_bytes();
  const RandomWords rows = words_.child(1);
  for (int64_t row = row_begin; row < row_end; ++row, out += bytes) {
    const RandomWords words = rows.child(static_cast<uint64_t>(row));
    switch (tensor_.content) {
      case SynthContent::kWeights:
        blocks_.fill(words, tensor_.dims[0], out);
        break;
      case SynthContent::kEmbedding:
        fill_embedding(row, words, out);
        break;
      case SynthContent::kHashTable:
        fill_hash(words, out);
        break;
    }
  }
}

void SynthRows::fill_embedding(int64_t token, const RandomWords& words, unsigned char* out) const {
  const int64_t dim = tensor_.dims[0];
  const float* signs = signs_.data() + synth_token_range(token, vocab_) * dim;
  words.copy(tensor_.row_bytes(), out);
  for (int64_t at = 0; at < dim; at += kQ8Block, out += kQ8Block + 2) {
    std::memcpy(out, &scale_, 2);
    for (int i = 0; i < kQ8Block; ++i) {
      const float uniform = (static_cast<float>(out[2 + i]) - 127.5f) * (1 / 127.5f);
      const float code = own_ * uniform + shared_ * signs[at + i];
      // Rounds by cutting off a positive number.
      out[2 + i] = static_cast<unsigned char>(static_cast<int>(code + 128.5f) - 128);
    }
  }
}

// Floyd's draw: each set of distinct experts is equally likely.
void SynthRows::fill_hash(const RandomWords& words, unsigned char* out) const {
  const auto used = static_cast<int32_t>(tensor_.dims[0]);
  for (int32_t i = 0; i < used; ++i) {
    const int32_t last = experts_ - used + i;
    const auto drawn =
        static_cast<int32_t>((words[static_cast<uint64_t>(i)] >> 32) * (last + 1ULL) >> 32);
    int32_t expert = drawn;
    for (int32_t j = 0; j < i; ++j) {
      int32_t earlier;
      std::memcpy(&earlier, out + 4 * j, 4);
      if (earlier == drawn) expert = last;
    }
    std::memcpy(out + 4 * i, &expert, 4);
  }
}

}  // namespace hearth
