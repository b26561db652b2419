// Machine profiles as JSON files; profiles/README.md documents the fields.
//
// A profile may come from anyone: it is taken whole or refused. All its faults are named in one
// Error, each with its JSON pointer.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "offload/machine/machine.h"

namespace hearth {

// Files larger than this are refused unread; a full profile has some 30 KB.
constexpr int64_t kProfileBytesMax = int64_t{1} << 20;

// Throws Error.
Machine read_machine(const std::filesystem::path& path);

// `where` names the text in errors. Throws Error.
Machine parse_machine(std::string_view text, const std::string& where);

// The text of a profile, ending in a newline; parse_machine() makes the same machine of it where
// the machine is a valid one.
std::string write_machine(const Machine& machine);

}  // namespace hearth
