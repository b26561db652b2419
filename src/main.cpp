// Picks the command; the one place that turns an Error into a message and an exit code.
#include <cstdio>
#include <exception>

#include "base/error.h"
#include "cli/app.h"

namespace {

// Results that couldn't be written are no success.
int finish(int exit_code) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return exit_code;
  std::fprintf(stderr,
               "hearth: standard output: could not be written whole. Check the free space where it "
               "goes\n");
  return exit_code == 0 ? 1 : exit_code;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return finish(hearth::cli::run_app(argc, argv));
  } catch (const hearth::Error& error) {
    std::fprintf(stderr, "hearth: %s\n", error.what());
    return finish(error.kind() == hearth::Error::Kind::kUsage ? 2 : 1);
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "hearth: out of memory. Choose a smaller model or context (--ctx)\n");
  } catch (const std::exception& error) {
    // Of the output `finish` tells itself.
    if (std::ferror(stdout) == 0) std::fprintf(stderr, "hearth: %s\n", error.what());
  }
  return finish(1);
}
