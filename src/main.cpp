// Picks the command; the one place that turns an Error into a message and an exit code.
#include <cstdio>
#include <exception>

#include "base/error.h"
#include "cli/app.h"

int main(int argc, char** argv) {
  try {
    return hearth::cli::run_app(argc, argv);
  } catch (const hearth::Error& error) {
    std::fprintf(stderr, "hearth: %s\n", error.what());
    return error.kind() == hearth::Error::Kind::kUsage ? 2 : 1;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "hearth: out of memory. Choose a smaller model or context (--ctx)\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "hearth: %s\n", error.what());
  }
  return 1;
}
