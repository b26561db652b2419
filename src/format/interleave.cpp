#include "format/interleave.h"

#include <cstring>

#include "base/check.h"

namespace hearth {

namespace {

constexpr int64_t kWord = 4;
constexpr int64_t kStepColumns = 256;

// Copies a row; of each 256 columns the exponents first.
void copy_exponents_first(const unsigned char* row, int64_t bytes, unsigned char* out) {
  constexpr int64_t kBlocks = 8, kCodeBytes = 16, kBlockBytes = 1 + kCodeBytes;
  for (; bytes > 0; bytes -= kBlocks * kBlockBytes) {
    unsigned char* codes = out + kBlocks;
    for (int64_t b = 0; b < kBlocks; ++b, row += kBlockBytes, codes += kCodeBytes) {
      *out++ = row[0];
      std::memcpy(codes, row + 1, kCodeBytes);
    }
    out = codes;
  }
}

}  // namespace

bool can_interleave(TensorType type) {
  return type == TensorType::kMXFP4 || type == TensorType::kQ2_K || type == TensorType::kQ4_K;
}

bool can_interleave(TensorType type, int64_t rows, int64_t cols) {
  return can_interleave(type) && rows % kInterleavedRows == 0 && cols % kStepColumns == 0 &&
         cols <= kInterleavedColumnsMax;
}

void interleave_rows(TensorType type, int64_t cols, unsigned char* rows, unsigned char* scratch) {
  HEARTH_CHECK(can_interleave(type, kInterleavedRows, cols));
  const int64_t bytes = row_bytes(type, cols);
  for (int64_t row = 0; row < kInterleavedRows; ++row) {
    if (type == TensorType::kMXFP4) {
      copy_exponents_first(rows + row * bytes, bytes, scratch + row * bytes);
    } else {
      std::memcpy(scratch + row * bytes, rows + row * bytes, static_cast<size_t>(bytes));
    }
  }
  for (int64_t at = 0; at < bytes; at += kWord) {
    for (int64_t row = 0; row < kInterleavedRows; ++row, rows += kWord) {
      std::memcpy(rows, scratch + row * bytes + at, kWord);
    }
  }
}

}  // namespace hearth
