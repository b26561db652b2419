#include "text/vocabulary.h"

#include <fmt/format.h>

#include <optional>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "text/byte_map.h"
#include "text/token_matcher.h"
#include "text/utf8.h"

namespace hearth {
namespace {

// The values of tokenizer.ggml.token_type.
enum TokenType : int64_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

// Names that converters give to the one pre-tokenizer this program has.
constexpr std::string_view kPreTokenizers[] = {"joyai-llm", "deepseek-v3", "deepseek-v4",
                                               "hunyuan-dense"};

// Text from a file, fit to stand in a message: short, well-formed, without control characters.
std::string shown(std::string_view text) {
  constexpr size_t kShownMax = 60;
  Utf8Stream stream;
  std::string out = stream.feed(text.substr(0, kShownMax)) + stream.finish();
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  }
  return fmt::format("'{}{}'", out, text.size() > kShownMax ? "..." : "");
}

class Reader {
 public:
  Reader(const TensorDir& dir, const std::string& source) : dir_(dir), problems_(source) {}

  Vocabulary read() {
    check_kind();
    const auto* tokens = list<std::vector<std::string>>("tokenizer.ggml.tokens");
    const auto* types = list<std::vector<int64_t>>("tokenizer.ggml.token_type");
    const auto* merges = list<std::vector<std::string>>("tokenizer.ggml.merges");
    if (tokens && types && merges) read_lists(*tokens, *types, *merges);
    problems_.throw_if_any("Convert the model again, or choose another file");
    return std::move(vocabulary_);
  }

 private:
  void check_kind() {
    const std::string* model = dir_.text("tokenizer.ggml.model");
    if (!model) {
      problems_.add("tokenizer.ggml.model is missing");
    } else if (*model != "gpt2") {
      problems_.add("tokenizer.ggml.model is " + shown(*model) + ", only 'gpt2' is known");
    }
    const std::string* pre = dir_.text("tokenizer.ggml.pre");
    if (!pre) {
      problems_.add("tokenizer.ggml.pre is missing");
      return;
    }
    for (const std::string_view known : kPreTokenizers) {
      if (*pre == known) return;
    }
    problems_.add("tokenizer.ggml.pre is " + shown(*pre) +
                  ", known are joyai-llm, deepseek-v3, deepseek-v4 and hunyuan-dense");
  }

  template <typename List>
  const List* list(const char* key) {
    const auto found = dir_.metadata.find(key);
    const List* values = nullptr;
    if (found != dir_.metadata.end()) values = std::get_if<List>(&found->second);
    if (!values) problems_.add(fmt::format("{} is missing or of another type", key));
    return values;
  }

  void read_lists(const std::vector<std::string>& tokens, const std::vector<int64_t>& types,
                  const std::vector<std::string>& merges) {
    if (types.size() != tokens.size()) {
      problems_.add(fmt::format("tokenizer.ggml.token_type has {} entries for {} tokens",
                                types.size(), tokens.size()));
      return;
    }
    vocabulary_.bos = special_id("tokenizer.ggml.bos_token_id", tokens.size());
    vocabulary_.eos = special_id("tokenizer.ggml.eos_token_id", tokens.size());
    read_tokens(tokens, types);
    find_bytes();
    read_merges(merges);
  }

  int32_t special_id(const char* key, size_t vocab_size) {
    const std::optional<int64_t> id = dir_.integer(key);
    if (!id) {
      problems_.add(fmt::format("{} is missing", key));
    } else if (*id < 0 || static_cast<size_t>(*id) >= vocab_size) {
      problems_.add(fmt::format("{} is {}, outside of the {} tokens", key, *id, vocab_size));
    } else {
      return static_cast<int32_t>(*id);
    }
    return 0;
  }

  void read_tokens(const std::vector<std::string>& tokens, const std::vector<int64_t>& types) {
    vocabulary_.tokens.reserve(tokens.size());
    base_ids_.reserve(tokens.size());
    for (size_t id = 0; id < tokens.size(); ++id) {
      switch (types[id]) {
        case kNormal:
        case kByte:
          add_base_token(tokens[id], id);
          break;
        case kControl:
        case kUserDefined:
          add_added_token(tokens[id], id);
          break;
        case kUnknown:
        case kUnused:
          vocabulary_.tokens.push_back({tokens[id], false});
          break;
        default:
          problems_.add(fmt::format("token {} has the unknown type {}", id, types[id]));
          vocabulary_.tokens.push_back({tokens[id], false});
      }
    }
  }

  // A text that is not made of stand-ins is no result of merging bytes; it decodes to itself.
  void add_base_token(const std::string& text, size_t id) {
    std::optional<std::string> bytes = unmap_bytes(text);
    vocabulary_.tokens.push_back({bytes ? std::move(*bytes) : text, false});
    if (!base_ids_.emplace(text, static_cast<int32_t>(id)).second) {
      problems_.add(fmt::format("token {} repeats {}", id, shown(text)));
    }
  }

  void add_added_token(const std::string& text, size_t id) {
    if (text.empty() || text.size() > TokenMatcher::kTokenBytesMax) {
      problems_.add(fmt::format("added token {} has {} bytes, 1 to {} are allowed", id, text.size(),
                                TokenMatcher::kTokenBytesMax));
    } else if (!added_.insert(text).second) {
      problems_.add(fmt::format("added token {} repeats {}", id, shown(text)));
    }
    vocabulary_.tokens.push_back({text, true});
  }

  void find_bytes() {
    for (int byte = 0; byte < 256; ++byte) {
      const auto found = base_ids_.find(byte_stand_in(static_cast<unsigned char>(byte)));
      if (found == base_ids_.end()) {
        problems_.add(fmt::format("no token stands for the byte {}", byte));
        continue;
      }
      vocabulary_.byte_ids[static_cast<size_t>(byte)] = found->second;
    }
  }

  void read_merges(const std::vector<std::string>& merges) {
    std::unordered_set<std::string_view> seen;
    seen.reserve(merges.size());
    vocabulary_.merges.reserve(merges.size());
    for (size_t rank = 0; rank < merges.size(); ++rank) {
      const std::string& text = merges[rank];
      const std::optional<Merge> merge = read_merge(text);
      if (!merge) {
        problems_.add(fmt::format("merge {} ({}) is not two known tokens that make a third", rank,
                                  shown(text)));
      } else if (!seen.insert(text).second) {
        problems_.add(fmt::format("merge {} repeats {}", rank, shown(text)));
      } else {
        vocabulary_.merges.push_back(*merge);
      }
    }
  }

  std::optional<Merge> read_merge(std::string_view text) const {
    const size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
      return {};
    }
    const std::string_view left = text.substr(0, space), right = text.substr(space + 1);
    if (left.empty() || right.empty()) return {};
    const auto left_id = base_ids_.find(left), right_id = base_ids_.find(right);
    std::string joined(left);
    joined += right;
    const auto merged_id = base_ids_.find(joined);
    const auto unknown = base_ids_.end();
    if (left_id == unknown || right_id == unknown || merged_id == unknown) return {};
    return Merge{left_id->second, right_id->second, merged_id->second};
  }

  const TensorDir& dir_;
  Problems problems_;
  Vocabulary vocabulary_{};
  std::unordered_map<std::string_view, int32_t> base_ids_;  // by text as it stands in the file
  std::unordered_set<std::string_view> added_;
};

}  // namespace

Vocabulary read_vocabulary(const TensorDir& dir, const std::string& source) {
  return Reader(dir, source).read();
}

}  // namespace hearth
