// Plans as JSON: for programs, and to be replayed.
#pragma once

#include <filesystem>
#include <string>

#include "offload/plan/plan.h"

namespace hearth {

// One document; a field's unit is the end of its name.
std::string write_plan(const Plan& plan);

// What was decided, of a document that write_plan made; predictions stay there. Throws one Error
// naming every field that is missing, ill-typed or out of range, or where the hash isn't that of
// the content.
Plan read_plan(const std::filesystem::path& path);

}  // namespace hearth
