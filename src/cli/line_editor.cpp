#include "cli/line_editor.h"

#include <fcntl.h>
#include <histedit.h>
#include <sys/stat.h>
#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <cstdlib>

namespace hearth::cli {
namespace {

constexpr int kHistoryLines = 1000;

}  // namespace

struct LineEditor::Library {
  EditLine* editor = nullptr;
  History* history = nullptr;
  std::string prompt;

  static char* show_prompt(EditLine* editor) {
    void* library = nullptr;
    el_get(editor, EL_CLIENTDATA, &library);
    return static_cast<Library*>(library)->prompt.data();
  }
};

LineEditor::LineEditor(std::filesystem::path history_file)
    : library_(new Library), history_file_(std::move(history_file)) {
  // Without a locale of the user's, characters beyond ASCII could not be edited.
  if (std::setlocale(LC_CTYPE, "") == nullptr || MB_CUR_MAX == 1)
    std::setlocale(LC_CTYPE, "C.UTF-8");
  library_->editor = el_init("hearth", stdin, stderr, stderr);
  library_->history = history_init();
  HistEvent event;
  history(library_->history, &event, H_SETSIZE, kHistoryLines);
  history(library_->history, &event, H_SETUNIQUE, 1);
  if (!history_file_.empty()) history(library_->history, &event, H_LOAD, history_file_.c_str());
  el_set(library_->editor, EL_CLIENTDATA, library_);
  el_set(library_->editor, EL_PROMPT, &Library::show_prompt);
  el_set(library_->editor, EL_EDITOR, "emacs");
  el_set(library_->editor, EL_HIST, history, library_->history);
  el_set(library_->editor, EL_SIGNAL, 0);
}

LineEditor::~LineEditor() {
  if (!history_file_.empty()) {
    std::error_code ignored;
    std::filesystem::create_directories(history_file_.parent_path(), ignored);
    // Created here, before the library writes it, so that it is never readable by others.
    const int file = open(history_file_.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (file >= 0) {
      fchmod(file, 0600);
      close(file);
      HistEvent event;
      history(library_->history, &event, H_SAVE, history_file_.c_str());
    }
  }
  history_end(library_->history);
  el_end(library_->editor);
  delete library_;
}

LineEditor::Outcome LineEditor::read(const std::string& prompt, std::string& line) {
  line.clear();
  library_->prompt = prompt;
  while (true) {
    int bytes = 0;
    const char* read = el_gets(library_->editor, &bytes);
    if (read == nullptr || bytes <= 0) return bytes < 0 ? Outcome::kInterrupted : Outcome::kEnd;
    line.append(read, bytes);
    if (line.ends_with('\n')) line.pop_back();
    if (!line.ends_with('\\')) break;
    line.back() = '\n';
    library_->prompt = std::string(prompt.size() - 1, '.') + " ";
  }
  if (!line.empty()) {
    HistEvent event;
    history(library_->history, &event, H_ENTER, line.c_str());
  }
  return Outcome::kLine;
}

std::filesystem::path default_history_file() {
  const char* state = std::getenv("XDG_STATE_HOME");
  if (state != nullptr && *state != '\0') return std::filesystem::path(state) / "hearth/history";
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home == '\0') return {};
  return std::filesystem::path(home) / ".local/state/hearth/history";
}

}  // namespace hearth::cli
