// Lines from a person at a terminal, with editing and a history that stays private.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace hearth::cli {

class LineEditor {
 public:
  // An empty path keeps no history beyond this program's life. The file is readable by its owner
  // only.
  explicit LineEditor(std::filesystem::path history_file);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  enum class Outcome { kLine, kInterrupted, kEnd };
  // Reads a line without its end; one that ends in a backslash goes on in the next.
  Outcome read(const std::string& prompt, std::string& line);

 private:
  struct Library;
  Library* library_;
  std::filesystem::path history_file_;
};

// Where the history of chats is kept: the state folder of the desktop conventions; empty where
// there is no home.
std::filesystem::path default_history_file();

}  // namespace hearth::cli
