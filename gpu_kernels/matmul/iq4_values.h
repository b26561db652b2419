// What the nibbles of IQ4_NL and IQ4_XS stand for.
#pragma once

#include "base/codebooks.h"
#include "gpu_kernels/matmul/codes.h"

namespace hearth::HEARTH_GPU {

constexpr uint32_t pack_iq4_values(int first) {
  uint32_t packed = 0;
  for (int i = 0; i < 4; ++i) {
    packed |= static_cast<uint32_t>(static_cast<uint8_t>(kIq4Values[first + i])) << (8 * i);
  }
  return packed;
}

struct Iq4Nibbles {
  static constexpr uint32_t kWord0 = pack_iq4_values(0), kWord1 = pack_iq4_values(4),
                            kWord2 = pack_iq4_values(8), kWord3 = pack_iq4_values(12);
};

}  // namespace hearth::HEARTH_GPU
