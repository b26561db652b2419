#include "gpu_kernels/matmul/embed.h"
#include "gpu_kernels/matmul/experts.h"
#include "gpu_kernels/matmul/few.h"
#include "gpu_kernels/matmul/formats.h"

namespace hearth::HEARTH_GPU {
namespace {

// A half float, then 32 signed bytes.
struct Q8_0 : CodeFormat<32, false> {
  static constexpr int kBlock = 32, kBlockBytes = 34, kChunk = 1024;

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    const unsigned char* block = chunk + number * kBlockBytes;
    Piece piece;
    load_words(block + 2, piece.codes);
    piece.scales[0] = half_to_float(load_pair(block));
    return piece;
  }
};

}  // namespace

void multiply_q8_0(const GpuMatmulParams& params, GpuStream stream) {
  multiply_few<Q8_0>(params, stream);
}

void embed_q8_0(const GpuEmbedParams& params, GpuStream stream) {
  embed_rows<Q8_0>(params, stream);
}

void hidden_q8_0(const GpuExpertHiddenParams& params, GpuStream stream) {
  hidden_of_experts<Q8_0>(params, stream);
}

void output_q8_0(const GpuExpertOutputParams& params, GpuStream stream) {
  output_of_experts<Q8_0>(params, stream);
}

}  // namespace hearth::HEARTH_GPU
