// The tables that multiply in tiles and can run here: the real one where the CPU has tile units,
// the emulated one where it has AVX-512.
#pragma once

#include <doctest/doctest.h>

#include <string_view>
#include <vector>

#include "cpu_kernels/registry.h"

namespace hearth::amx_emulated {
extern const Kernels kKernels;
}

namespace hearth::test {

inline std::vector<const Kernels*> tile_tables() {
  std::vector<const Kernels*> tables;
  bool has_avx512 = false;
  for (const Kernels* kernels : usable_kernels()) {
    if (kernels->reads_bfloat16) tables.push_back(kernels);
    has_avx512 |= std::string_view(kernels->name) == "avx512";
  }
  if (has_avx512 && __builtin_cpu_supports("avx512bf16")) {
    tables.push_back(&amx_emulated::kKernels);
  }
  if (tables.empty()) MESSAGE("no AVX-512 with BF16 here: tiles are not tested");
  return tables;
}

}  // namespace hearth::test
