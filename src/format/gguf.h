// The GGUF container, versions 2 and 3, single files and split ones.
#pragma once

#include <filesystem>

#include "format/tensor_dir.h"

namespace hearth {

// Opens `path` and, where it is one part of a split model (NAME-00001-of-00004.gguf), all its
// parts. Maps the files; reads only the headers. Throws one Error that lists every problem of a
// file that is not what it says: wrong magic or version, truncated or overlapping tensors, bad
// counts, shapes, types, offsets, names.
TensorDir open_gguf(const std::filesystem::path& path);

}  // namespace hearth
