// What the tables measure: the shapes of DeepSeek-V4-Flash, and how much time and memory a
// measurement takes. One struct, so that a test can run every table small.
#pragma once

#include <cstdint>
#include <vector>

namespace hearth::bench {

struct Sizes {
  int64_t dim = 4096;
  int32_t streams = 4;
  int32_t sinkhorn_iterations = 20;
  int32_t heads = 64;
  int32_t head_dim = 512;
  int32_t rope_dim = 64;
  int64_t q_rank = 1024;
  int32_t output_groups = 8;
  int64_t output_rank = 1024;
  int64_t vocab = 129280;
  int32_t experts = 256;
  int32_t experts_used = 6;
  int64_t expert_dim = 2048;
  int32_t window = 128;
  int32_t csa_ratio = 4;
  int32_t hca_ratio = 128;
  int32_t index_heads = 64;
  int32_t index_dim = 128;
  int32_t top_k = 512;
  int64_t context = 131072;  // tokens in the caches

  std::vector<int64_t> prefill_tokens = {512, 2048};  // the first of them for attention
  int64_t gemm_rows = 8192, gemm_cols = 4096;

  int64_t device_copy_bytes = int64_t{1} << 30;
  int64_t host_copy_bytes = int64_t{256} << 20;
  int64_t round_trip_bytes = 16 << 10;
  int64_t chain = 1000;  // launches in the chain that shows what one costs

  // Bytes that are walked through before the same ones come again: many times the L2 cache.
  int64_t walk_bytes = int64_t{1} << 30;
  int64_t expert_walk_bytes = int64_t{4} << 30;

  double run_us = 20000;  // a measured run takes so long at least
  int runs = 5;           // the median of these counts

  int64_t heads_width() const { return heads * int64_t{head_dim}; }
};

// The least that has every part of the shapes above, for emulated threads.
inline Sizes tiny_sizes() {
  Sizes s;
  s.dim = s.q_rank = s.expert_dim = s.output_rank = 256;
  s.sinkhorn_iterations = 2;
  s.heads = 4;
  s.head_dim = 128;
  s.rope_dim = 16;
  s.output_groups = 2;
  s.vocab = 300;
  s.experts = 4;
  s.experts_used = 2;
  s.window = 8;
  s.hca_ratio = 16;
  s.index_heads = 2;
  s.index_dim = 32;
  s.top_k = 16;
  s.context = 256;
  s.prefill_tokens = {20, 80};  // few picks an expert, and many
  s.gemm_rows = 64;
  s.gemm_cols = 256;
  s.device_copy_bytes = s.host_copy_bytes = 4096;
  s.round_trip_bytes = 256;
  s.chain = 5;
  s.walk_bytes = s.expert_walk_bytes = 1;
  s.run_us = 0;
  s.runs = 1;
  return s;
}

}  // namespace hearth::bench
