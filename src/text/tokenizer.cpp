#include "text/tokenizer.h"

#include <fmt/format.h>

#include "base/check.h"
#include "base/error.h"
#include "text/utf8.h"

namespace hearth {
namespace {

// The length of the stretch at the front of `text` that is well-formed throughout, or ill-formed
// throughout.
size_t uniform_stretch(std::string_view text) {
  const bool well_formed = utf8_length(text) > 0;
  size_t end = 0;
  while (end < text.size()) {
    const size_t length = utf8_length(text.substr(end));
    if ((length > 0) != well_formed) break;
    end += well_formed ? length : 1;
  }
  return end;
}

}  // namespace

Tokenizer::Tokenizer(const TensorDir& dir, const std::string& source)
    : Tokenizer(read_vocabulary(dir, source)) {}

Tokenizer::Tokenizer(Vocabulary vocabulary)
    : tokens_(std::move(vocabulary.tokens)),
      bos_(vocabulary.bos),
      eos_(vocabulary.eos),
      bpe_(vocabulary.byte_ids, vocabulary.merges) {
  for (size_t id = 0; id < tokens_.size(); ++id) {
    if (!tokens_[id].is_added) continue;
    matcher_.add(tokens_[id].bytes, static_cast<int32_t>(id));
    special_ids_.emplace(tokens_[id].bytes, static_cast<int32_t>(id));
  }
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, Specials specials) const {
  if (text.size() > kTextBytesMax) {
    throw Error(fmt::format("the text has {} bytes, {} are the most", text.size(), kTextBytesMax),
                "tokenizer", "Shorten it");
  }
  std::vector<int32_t> ids;
  Bpe::Scratch scratch;
  if (specials == Specials::kAsText) {
    encode_stretch(text, scratch, ids);
    return ids;
  }
  for (size_t done = 0; done < text.size();) {
    const TokenMatcher::Match match = matcher_.find(text, done);
    encode_stretch(text.substr(done, match.begin - done), scratch, ids);
    if (match.bytes > 0) ids.push_back(match.id);
    done = match.begin + match.bytes;
  }
  return ids;
}

void Tokenizer::encode_stretch(std::string_view text, Bpe::Scratch& scratch,
                               std::vector<int32_t>& ids) const {
  for (const std::string_view piece : pieces(text)) bpe_.encode(piece, scratch, ids);
}

std::vector<std::string_view> Tokenizer::pieces(std::string_view text) const {
  std::vector<std::string_view> pieces;
  while (!text.empty()) {
    const bool well_formed = utf8_length(text) > 0;
    const std::string_view stretch = text.substr(0, uniform_stretch(text));
    if (well_formed) {
      pre_tokenizer_.cut(stretch, pieces);
    } else {
      pieces.push_back(stretch);
    }
    text.remove_prefix(stretch.size());
  }
  return pieces;
}

const std::string& Tokenizer::token_bytes(int32_t id) const {
  HEARTH_CHECK(is_valid(id));
  return tokens_[static_cast<size_t>(id)].bytes;
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string bytes;
  for (const int32_t id : ids) bytes += token_bytes(id);
  return bytes;
}

std::optional<int32_t> Tokenizer::find_special(std::string_view text) const {
  const auto found = special_ids_.find(text);
  if (found == special_ids_.end()) return {};
  return found->second;
}

bool Tokenizer::is_special(int32_t id) const {
  HEARTH_CHECK(is_valid(id));
  return tokens_[static_cast<size_t>(id)].is_added;
}

}  // namespace hearth
