// The printable stand-ins that byte-level vocabularies write for bytes (spec chat.md 1.4):
// printable Latin-1 stands for itself, the other 68 bytes for U+0100 to U+0143.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace hearth {

// The stand-in of one byte, in UTF-8.
std::string byte_stand_in(unsigned char byte);

// The bytes that a token text stands for; nothing where a character of it is no stand-in.
std::optional<std::string> unmap_bytes(std::string_view token);

}  // namespace hearth
