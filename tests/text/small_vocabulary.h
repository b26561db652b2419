// A vocabulary small enough to check by hand, built in code: the bytes, a few merges, the chat
// tokens.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "format/tensor_dir.h"
#include "text/byte_map.h"

namespace hearth::test {

constexpr int64_t kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5;

struct SmallVocabulary {
  std::vector<std::string> tokens;
  std::vector<int64_t> types;
  std::vector<std::string> merges;

  int32_t add(const std::string& token, int64_t type) {
    tokens.push_back(token);
    types.push_back(type);
    return static_cast<int32_t>(tokens.size()) - 1;
  }
  int32_t merge(const std::string& left, const std::string& right) {
    merges.push_back(left + " " + right);
    return add(left + right, kNormal);
  }

  TensorDir dir() const {
    TensorDir out;
    out.metadata["tokenizer.ggml.model"] = std::string("gpt2");
    out.metadata["tokenizer.ggml.pre"] = std::string("deepseek-v3");
    out.metadata["tokenizer.ggml.tokens"] = tokens;
    out.metadata["tokenizer.ggml.token_type"] = types;
    out.metadata["tokenizer.ggml.merges"] = merges;
    out.metadata["tokenizer.ggml.bos_token_id"] = int64_t{256};
    out.metadata["tokenizer.ggml.eos_token_id"] = int64_t{257};
    return out;
  }
};

// The id of every single byte is the byte; then the added tokens, then the merged ones.
inline SmallVocabulary small_vocabulary() {
  SmallVocabulary out;
  for (int byte = 0; byte < 256; ++byte) {
    out.add(byte_stand_in(static_cast<unsigned char>(byte)), kNormal);
  }
  out.add("<｜begin▁of▁sentence｜>", kControl);
  out.add("<｜end▁of▁sentence｜>", kControl);
  out.add("<｜User｜>", kControl);
  out.add("<｜Assistant｜>", kControl);
  for (const char* text : {"<think>", "</think>", "｜DSML｜"}) out.add(text, kUserDefined);
  for (const auto& [left, right] : std::vector<std::pair<std::string, std::string>>{
           {"a", "b"}, {"b", "c"}, {"ab", "c"}, {"Ġ", "Ġ"}, {"ĠĠ", "ĠĠ"}, {"Ġ", "a"}, {"z", "z"}}) {
    out.merge(left, right);
  }
  return out;
}

}  // namespace hearth::test
