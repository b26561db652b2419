#include "format/interleave.h"

#include <cstring>

#include "base/check.h"

namespace hearth {

bool can_interleave(TensorType type, int64_t rows) {
  return (type == TensorType::kQ2_K || type == TensorType::kQ4_K) && rows % kInterleavedRows == 0;
}

void interleave_rows(TensorType type, int64_t cols, unsigned char* rows, unsigned char* scratch) {
  HEARTH_CHECK(can_interleave(type, kInterleavedRows));
  constexpr int64_t kWord = 4;
  const int64_t bytes = row_bytes(type, cols);
  std::memcpy(scratch, rows, static_cast<size_t>(kInterleavedRows * bytes));
  for (int64_t at = 0; at < bytes; at += kWord) {
    for (int64_t row = 0; row < kInterleavedRows; ++row, rows += kWord) {
      std::memcpy(rows, scratch + row * bytes + at, kWord);
    }
  }
}

}  // namespace hearth
