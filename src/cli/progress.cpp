#include "cli/progress.h"

#include <unistd.h>

#include <cstdio>
#include <utility>

namespace hearth::cli {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kPatience{300};  // what is done sooner needs no bar
constexpr milliseconds kInterval{100};
constexpr int kWidth = 30;

}  // namespace

ProgressBar::ProgressBar(std::string label)
    : label_(std::move(label)),
      on_terminal_(isatty(STDERR_FILENO) == 1),
      started_(steady_clock::now()) {}

void ProgressBar::show(int64_t done, int64_t total) {
  const auto now = steady_clock::now();
  if (!on_terminal_ || total <= 0 || now - started_ < kPatience || now - last_drawn_ < kInterval) {
    return;
  }
  last_drawn_ = now;
  drawn_ = true;
  const int filled = static_cast<int>(kWidth * done / total);
  const std::string bar = std::string(filled, '#') + std::string(kWidth - filled, '.');
  std::fprintf(stderr, "\r%s [%s] %3d%%", label_.c_str(), bar.c_str(),
               static_cast<int>(100 * done / total));
  std::fflush(stderr);
}

void ProgressBar::clear() {
  if (drawn_) std::fprintf(stderr, "\r\033[K");
  drawn_ = false;
}

}  // namespace hearth::cli
