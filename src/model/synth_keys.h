// The metadata of a synthetic model: its dimensions, and the tokenizer of another model grown to
// its vocabulary.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "format/gguf_writer.h"
#include "model/synth.h"

namespace hearth {

using SynthKeys = std::vector<std::pair<std::string, GgufValue>>;

// Every key that hearth and its relatives ask for; without a vocabulary none of a tokenizer. Throws
// Error where the file `vocabulary` holds no tokenizer, or one of more tokens than the shape.
SynthKeys synth_keys(const SynthShape& shape, const std::filesystem::path& vocabulary);

}  // namespace hearth
