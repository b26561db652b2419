// Text to token ids and back: DeepSeek's byte-level BPE (spec chat.md section 1). Immutable once
// built; every function is safe from several threads.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "format/tensor_dir.h"
#include "text/bpe.h"
#include "text/pre_tokenizer.h"
#include "text/token_matcher.h"
#include "text/vocabulary.h"

namespace hearth {

// Whether the strings of added tokens (<think>, <｜User｜>, ...) in a text become these tokens or
// stay text. Text that a person or a program supplied must stay text.
enum class Specials { kAsText, kMatch };

class Tokenizer {
 public:
  // Throws one Error that lists every problem of the vocabulary; `source` names the file in it.
  Tokenizer(const TensorDir& dir, const std::string& source);

  // Any bytes; decode(encode(text)) is `text`. Ill-formed UTF-8: each maximal stretch of bytes that
  // belong to no well-formed character is a piece of its own, the text on either side is tokenized
  // as if it stood alone. Adds nothing, no BOS either. Throws Error for more than kTextBytesMax.
  std::vector<int32_t> encode(std::string_view text, Specials specials) const;
  static constexpr size_t kTextBytesMax = Bpe::kPieceBytesMax;

  // The pieces that merging works on, for tests and for looking at a text. Views into `text`.
  std::vector<std::string_view> pieces(std::string_view text) const;

  // 0 <= id < vocab_size(). Single tokens may hold part of a character.
  const std::string& token_bytes(int32_t id) const;
  // The bytes of `ids` one after the other, added tokens as their literal text.
  std::string decode(std::span<const int32_t> ids) const;

  int32_t vocab_size() const { return static_cast<int32_t>(tokens_.size()); }
  bool is_valid(int64_t id) const { return id >= 0 && id < vocab_size(); }
  int32_t bos() const { return bos_; }
  int32_t eos() const { return eos_; }

  // The added token with exactly this text.
  std::optional<int32_t> find_special(std::string_view text) const;
  bool is_special(int32_t id) const;

 private:
  explicit Tokenizer(Vocabulary vocabulary);
  void encode_stretch(std::string_view text, Bpe::Scratch& scratch,
                      std::vector<int32_t>& ids) const;

  std::vector<Vocabulary::Token> tokens_;
  int32_t bos_;
  int32_t eos_;
  PreTokenizer pre_tokenizer_;
  Bpe bpe_;
  TokenMatcher matcher_;
  std::unordered_map<std::string_view, int32_t> special_ids_;  // views into tokens_
};

}  // namespace hearth
