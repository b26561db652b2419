#include "text/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>

#include "base/check.h"
#include "base/error.h"

namespace hearth {
namespace {

// White space is spelled out because PCRE2's \s also takes U+180E, which Unicode no longer counts
// as space.
#define SPACES                                                                \
  R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029})" \
  R"(\x{202f}\x{205f}\x{3000})"
#define SPACE "[" SPACES "]"
#define NO_SPACE "[^" SPACES "]"

// The alternatives of the last one are tried in this order.
constexpr const char* kPatterns[] = {
    R"(\p{N}{1,3})",
    R"([\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+)",
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)"
    R"(|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
    R"(| ?[\p{P}\p{S}]+[\r\n]*)"
    "|" SPACE R"(*[\r\n]+)"
    "|" SPACE "+(?!" NO_SPACE
    ")"
    "|" SPACE "+",
};

// A match backs up at most over the white space it has just read, so this much per byte is never
// reached.
constexpr size_t kMatchStepsPerByte = 8;
constexpr size_t kMatchStepsMin = 10000;

std::string pcre2_message(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

void PreTokenizer::FreeCode::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

// What PCRE2 writes during a match; every call of cut() has its own.
class PreTokenizer::Matcher {
 public:
  explicit Matcher(size_t text_bytes)
      : data_(pcre2_match_data_create(1, nullptr)), context_(pcre2_match_context_create(nullptr)) {
    if (!data_ || !context_) fail("out of memory");
    const size_t steps = std::max(kMatchStepsMin, text_bytes * kMatchStepsPerByte);
    pcre2_set_match_limit(context_.get(),
                          static_cast<uint32_t>(std::min<size_t>(steps, UINT32_MAX)));
  }

  // The first match in `text` from `start` on; false where there is none.
  bool find(const pcre2_code* code, std::string_view text, size_t start) {
    const int count = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                  start, PCRE2_NO_UTF_CHECK, data_.get(), context_.get());
    if (count == PCRE2_ERROR_NOMATCH) return false;
    if (count < 0) fail(pcre2_message(count));
    return true;
  }
  size_t begin() const { return pcre2_get_ovector_pointer(data_.get())[0]; }
  size_t end() const { return pcre2_get_ovector_pointer(data_.get())[1]; }

 private:
  [[noreturn]] static void fail(const std::string& why) {
    throw Error(fmt::format("the text could not be cut into pieces (PCRE2: {})", why), "tokenizer",
                "Try a shorter text");
  }
  struct FreeData {
    void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  };
  struct FreeContext {
    void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
  };
  std::unique_ptr<pcre2_match_data, FreeData> data_;
  std::unique_ptr<pcre2_match_context, FreeContext> context_;
};

PreTokenizer::PreTokenizer() {
  static_assert(std::size(kPatterns) == kStages);
  for (size_t i = 0; i < kStages; ++i) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    stages_[i].reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(kPatterns[i]),
                                   PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error, &offset,
                                   nullptr));
    if (!stages_[i]) {
      throw Error("PCRE2 does not take a pattern: " + pcre2_message(error), "tokenizer",
                  "Use a PCRE2 that was built with Unicode support");
    }
    // Where the machine forbids generated code this fails, and matching is interpreted: slower,
    // same result.
    (void)pcre2_jit_compile(stages_[i].get(), PCRE2_JIT_COMPLETE);
  }
}

void PreTokenizer::cut(std::string_view text, std::vector<std::string_view>& pieces) const {
  if (text.empty()) return;
  Matcher matcher(text.size());
  cut_stage(0, text, matcher, pieces);
}

// Matches and the stretches between them become pieces, each cut further by the next stage. A stage
// sees only its own piece, so that looking ahead at the end of a piece finds the end of the text.
void PreTokenizer::cut_stage(size_t stage, std::string_view text, Matcher& matcher,
                             std::vector<std::string_view>& pieces) const {
  if (stage == kStages) {
    pieces.push_back(text);
    return;
  }
  size_t done = 0;
  while (done < text.size() && matcher.find(stages_[stage].get(), text, done)) {
    const size_t begin = matcher.begin(), end = matcher.end();
    HEARTH_CHECK(end > begin);
    if (begin > done) cut_stage(stage + 1, text.substr(done, begin - done), matcher, pieces);
    cut_stage(stage + 1, text.substr(begin, end - begin), matcher, pieces);
    done = end;
  }
  if (done < text.size()) cut_stage(stage + 1, text.substr(done), matcher, pieces);
}

}  // namespace hearth
