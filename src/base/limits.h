// Sizes that bound every queue, batch and buffer. One run-time struct, so that tests can shrink
// them all.
#pragma once

#include <cstdint>

namespace hearth {

struct Limits {
  int32_t chunk_tokens = 2048;  // tokens a forward pass takes at once; longer prompts are cut
  int32_t logit_rows = 64;      // tokens a forward pass gives logits of, so also sequences at once
  int32_t index_group_tokens = 16;                  // tokens whose index scores are held at once
  int32_t index_block_keys = 512;                   // index keys a worker scores at a time
  int32_t experts_read_ahead = 12;                  // experts on their way from a disk at once
  int64_t device_index_scores = int64_t{16} << 20;  // index scores a GPU holds at once
  // Of prompts, in a GPU's memory: half of them arrive while the other half is computed. Even.
  int32_t experts_sent = 32;
  // What caches in a GPU's memory grow by, and experts there are given back by: both are rare, and
  // little beside all of the memory.
  int32_t cache_tokens_at_once = 8192;
  int64_t vram_slab_bytes = int64_t{64} << 20;
};

// The least that still works: every loop over a limit takes its border case.
constexpr Limits kTinyLimits{1, 1, 1, 1, 1, 1, 2, 1, 1};

}  // namespace hearth
