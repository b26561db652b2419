#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstring>

#include "support.h"

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--tiny-limits") == 0) hearth::test::set_limits(hearth::kTinyLimits);
  }
  doctest::Context context(argc, argv);
  const int result = context.run();
  if (hearth::test::skipped() > 0) std::printf("%d cases skipped\n", hearth::test::skipped());
  return result;
}
