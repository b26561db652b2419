// Cuts text into the pieces that byte-pair merging works on: DeepSeek's three patterns, one after
// the other (spec chat.md 1.3). Immutable once built; safe from several threads.
#pragma once

#include <array>
#include <memory>
#include <string_view>
#include <vector>

struct pcre2_real_code_8;

namespace hearth {

class PreTokenizer {
 public:
  PreTokenizer();

  // Appends the pieces of `text`, which must be well-formed UTF-8; together they are the text. Time
  // is about linear in the text. Throws Error where PCRE2 gives up (no memory).
  void cut(std::string_view text, std::vector<std::string_view>& pieces) const;

 private:
  class Matcher;
  struct FreeCode {
    void operator()(pcre2_real_code_8* code) const;
  };
  void cut_stage(size_t stage, std::string_view text, Matcher& matcher,
                 std::vector<std::string_view>& pieces) const;

  static constexpr size_t kStages = 3;
  std::array<std::unique_ptr<pcre2_real_code_8, FreeCode>, kStages> stages_;
};

}  // namespace hearth
