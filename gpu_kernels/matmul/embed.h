// Rows of a table, as it is stored, to floats: a warp takes one chunk of a row, fetched as matmul
// fetches it.
#pragma once

#include "gpu_kernels/matmul/few.h"

namespace hearth::HEARTH_GPU {

struct EmbedParams {
  GpuEmbedParams embed;
  int64_t row_bytes;
  int64_t chunks;  // of a row
};

template <typename F>
__device__ __forceinline__ void store_piece(const GpuEmbedParams& p, const typename F::Piece& piece,
                                            int64_t token, int64_t column) {
  const int64_t dim = p.table.cols;
  for (int32_t s = 0; s < p.streams; ++s) {
    float* out = p.out + (token * p.streams + s) * dim + column;
    if (dim % 4 == 0) {
      HEARTH_UNROLL
      for (int i = 0; i < F::kPiece; i += 4) {
        if (column + i >= dim) break;
        *reinterpret_cast<float4*>(out + i) =
            make_float4(F::weight(piece, i), F::weight(piece, i + 1), F::weight(piece, i + 2),
                        F::weight(piece, i + 3));
      }
    } else {
      HEARTH_UNROLL
      for (int i = 0; i < F::kPiece; ++i) {
        if (column + i < dim) out[i] = F::weight(piece, i);
      }
    }
  }
}

template <typename F>
__global__ void __launch_bounds__(kBlockThreads) embed_kernel(EmbedParams params) {
  const GpuEmbedParams& p = params.embed;
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes,
            lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kFewWarps + warp;
  if constexpr (F::kTableBytes > 0) {
    F::load_table();
    __syncthreads();
  }
  if (item >= p.n * params.chunks) return;
  const int64_t token = item / params.chunks, chunk = item % params.chunks;

  FewRows<F, 1> rows;
  const int64_t table_row = p.tokens != nullptr ? p.tokens[token] : token;
  rows.row[0] = p.table.data + table_row * params.row_bytes;
  rows.row_bytes = params.row_bytes;
  rows.first_chunk = static_cast<int32_t>(chunk);
  rows.chunk_step = 1;
  rows.chunks = 1;
  rows.stages = dynamic_shared<unsigned char>() + F::kTableBytes + warp * rows.kStageBytes;
  rows.fetch(rows.begin());
  wait_copies<0>();
  __syncwarp();  // what the other lanes fetched is there
  for (int i = lane; i < F::kChunk / F::kPiece; i += kWarpLanes) {
    const int64_t column = chunk * F::kChunk + i * F::kPiece;
    if (column >= p.table.cols) break;
    store_piece<F>(p, F::unpack(rows.fetched(0, rows.begin()), i), token, column);
  }
}

template <typename F>
void embed_rows(const GpuEmbedParams& p, GpuStream stream) {
  HEARTH_CHECK(p.table.cols % F::kBlock == 0);
  const EmbedParams params = {p, p.table.cols / F::kBlock * F::kBlockBytes,
                              divide_up(p.table.cols, F::kChunk)};
  const int64_t blocks = divide_up(p.n * params.chunks, kFewWarps);
  launch(embed_kernel<F>,
         {static_cast<uint32_t>(blocks), kBlockThreads,
          F::kTableBytes + size_t{kFewWarps} * FewRows<F, 1>::kStageBytes},
         stream, params);
}

}  // namespace hearth::HEARTH_GPU
