// The tile table's row of the registry, and the probe of the tile units.
#include "cpu_kernels/amx/avx512.h"
#include "cpu_kernels/amx/tile_unit.h"
#include "cpu_kernels/bodies/isa.h"

#define HEARTH_QUOTE_TOKEN(token) #token
#define HEARTH_QUOTE(macro) HEARTH_QUOTE_TOKEN(macro)

namespace hearth::HEARTH_ISA {

// Four sums in turn, so that none waits for its own last result.
int64_t multiply_registers(int64_t rounds) {
  constexpr int64_t kFlopsOfTile = 2 * 16 * 16 * 32;
  TileUnit tiles;
  tiles.configure({16, 16, 16, 16, 16, 16, 16, 16});
  for (int64_t round = 0; round < rounds; ++round) {
    tiles.multiply<0, 4, 6>();
    tiles.multiply<1, 4, 7>();
    tiles.multiply<2, 5, 6>();
    tiles.multiply<3, 5, 7>();
  }
  return rounds * 4 * kFlopsOfTile;
}

extern const Kernels kKernels;
const Kernels kKernels = {
    .name = HEARTH_QUOTE(HEARTH_ISA),
    .reads_bfloat16 = true,
    .reads_interleaved = true,
    .quantize = quantize,
    .matmul = matmul,
    .rms_norm = avx512::rms_norm,
    .rope = avx512::rope,
    .store_kv = avx512::store_kv,
    .attention = attention,
    .index_scores = index_scores,
    .compress = avx512::compress,
    .swiglu = avx512::swiglu,
    .weighted_sum = avx512::weighted_sum,
    .softmax_terms = avx512::softmax_terms,
    .read_bytes = avx512::read_bytes,
    .multiply_registers = multiply_registers,
};

}  // namespace hearth::HEARTH_ISA
