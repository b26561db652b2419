// The weight formats of GGUF files: ids, block sizes, names; and how rows of a cache are stored.
// Plain data: kernels include this header.
#pragma once

#include <cstdint>

namespace hearth {

// Values are the type ids of the GGUF container.
enum class TensorType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ2_XXS = 16,
  kIQ2_XS = 17,
  kIQ3_XXS = 18,
  kIQ4_NL = 20,
  kIQ3_S = 21,
  kIQ2_S = 22,
  kIQ4_XS = 23,
  kI32 = 26,
  kBF16 = 30,
  kMXFP4 = 39,
  // Not in GGUF files: the released weights' eight-bit floats (E4M3), each 128 of a row after the
  // exponent of their scale (E8M0).
  kF8_E4M3 = 1u << 16,
};

// Values of the cache.
enum class KvType : uint32_t { kF32, kBF16 };

struct TypeInfo {
  TensorType type;
  const char* name;     // as in GGUF tools: "Q4_K"
  int32_t block_size;   // weights a block
  int32_t block_bytes;  // bytes a block
};

// Null for an id this program does not know, or that no GGUF file has.
const TypeInfo* find_type(uint32_t gguf_id);
// Null for an unknown name; case does not matter.
const TypeInfo* find_type_by_name(const char* name);
const TypeInfo& type_info(TensorType type);

// Bytes of a row of `cols` weights; cols must be a multiple of the block size.
int64_t row_bytes(TensorType type, int64_t cols);

constexpr int kInterleavedRows = 16;
constexpr int64_t kInterleavedColumnsMax = 16384;

// A view of a matrix as stored: `rows` rows of `cols` weights, row after row without padding.
// The row is the output dimension, the column the contiguous input dimension.
// Interleaved (format/interleave.h): each kInterleavedRows rows take turns, 32 bits of a row at a
// time. They take the same bytes, so such a group begins where it would.
struct Matrix {
  TensorType type;
  int64_t rows;
  int64_t cols;
  const unsigned char* data;
  bool interleaved = false;
};

}  // namespace hearth
