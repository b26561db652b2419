#include "gpu_kernels/matmul/embed.h"
#include "gpu_kernels/matmul/experts.h"
#include "gpu_kernels/matmul/few.h"
#include "gpu_kernels/matmul/formats.h"

namespace hearth::HEARTH_GPU {
namespace {

struct F32 : FloatFormat {
  static constexpr int kBlock = 1, kBlockBytes = 4, kChunk = 256;

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    uint32_t words[kPiece];
    load_words(chunk + number * kPiece * kBlockBytes, words);
    Piece piece;
    HEARTH_UNROLL
    for (int i = 0; i < kPiece; ++i) piece.weights[i] = bits_to_float(words[i]);
    return piece;
  }
};

}  // namespace

void multiply_f32(const GpuMatmulParams& params, GpuStream stream) {
  multiply_few<F32>(params, stream);
}

void embed_f32(const GpuEmbedParams& params, GpuStream stream) { embed_rows<F32>(params, stream); }

void hidden_f32(const GpuExpertHiddenParams& params, GpuStream stream) {
  hidden_of_experts<F32>(params, stream);
}

void output_f32(const GpuExpertOutputParams& params, GpuStream stream) {
  output_of_experts<F32>(params, stream);
}

}  // namespace hearth::HEARTH_GPU
