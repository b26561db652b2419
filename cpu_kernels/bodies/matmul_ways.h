// Picks the way a block-format matmul goes by its number of tokens; the results are the same bits.
#pragma once

#include "cpu_kernels/bodies/matmul_few.h"
#include "cpu_kernels/bodies/matmul_many.h"

namespace hearth::HEARTH_ISA {

template <TensorType type>
void matmul_blocks(const MatmulParams& p) {
  static_assert(kFewTokens == 4);
  switch (p.n) {
    case 0:
      return;
    case 1:
      return FewTokens<type, 1>(p).run();
    case 2:
      return FewTokens<type, 2>(p).run();
    case 3:
      return FewTokens<type, 3>(p).run();
    case 4:
      return FewTokens<type, 4>(p).run();
    default:
      return ManyTokens<type>(p).run();
  }
}

}  // namespace hearth::HEARTH_ISA
