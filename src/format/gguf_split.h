// Models cut into several files: their names, and whether the parts belong together.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "format/gguf_header.h"

namespace hearth {

// NAME-00002-of-00004.gguf: part 1 (from 0) of 4.
struct SplitName {
  std::filesystem::path stem;  // folder and NAME
  int64_t part = 0;
  int64_t count = 0;

  std::filesystem::path path_of(int64_t other_part) const;
};

// Nothing where the file name is not that of a part.
std::optional<SplitName> parse_split_name(const std::filesystem::path& path);

// Adds what in the header of part `part` (from 0) of `count` says otherwise.
void check_part(const GgufHeader& header, const std::string& name, int64_t part, int64_t count,
                Problems& problems);

// Adds what contradicts `parts` being all parts of one model, in order: the number of tensors,
// tensors that two of them hold, keys on which they disagree.
void check_together(const std::vector<const GgufHeader*>& parts,
                    const std::vector<std::string>& names, Problems& problems);

}  // namespace hearth
