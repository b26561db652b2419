#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstring>

#include "support.h"

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--tiny-limits") == 0) hearth::test::set_limits(hearth::kTinyLimits);
    if (std::strcmp(argv[i], "--device") == 0 && i + 1 < argc)
      hearth::test::set_device(argv[i + 1]);
  }
  if (const std::string why = hearth::test::why_not_here(); !why.empty()) {
    std::printf("not run: %s\n", why.c_str());
    return hearth::test::kNotRunCode;
  }
  doctest::Context context(argc, argv);
  const int result = context.run();
  if (hearth::test::skipped() > 0) std::printf("%d cases skipped\n", hearth::test::skipped());
  return result;
}
