// A model as its file has it, for tests of what computes with it.
#pragma once

#include <filesystem>

#include "format/gguf.h"
#include "model/config.h"
#include "model/weights.h"
#include "support.h"

namespace hearth::test {

struct Model {
  ModelConfig config;
  ModelWeights weights;
};

struct Loaded : Model {
  explicit Loaded(const std::filesystem::path& path) : dir(open_gguf(path)) {
    config = read_config(dir, path.string());
    weights = bind_weights(dir, config, path.string());
  }
  TensorDir dir;
};

inline const Loaded& nano() {
  static const Loaded loaded(data("nano/nano.gguf"));
  return loaded;
}
inline const Loaded& demo() {
  static const Loaded loaded(models("demo.gguf"));
  return loaded;
}

}  // namespace hearth::test
