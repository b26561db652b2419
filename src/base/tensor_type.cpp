#include "base/tensor_type.h"

#include <strings.h>

#include <array>

#include "base/check.h"

namespace hearth {
namespace {

constexpr std::array kTypes = {
    TypeInfo{TensorType::kF32, "F32", 1, 4},
    TypeInfo{TensorType::kF16, "F16", 1, 2},
    TypeInfo{TensorType::kQ4_0, "Q4_0", 32, 18},
    TypeInfo{TensorType::kQ4_1, "Q4_1", 32, 20},
    TypeInfo{TensorType::kQ5_0, "Q5_0", 32, 22},
    TypeInfo{TensorType::kQ5_1, "Q5_1", 32, 24},
    TypeInfo{TensorType::kQ8_0, "Q8_0", 32, 34},
    TypeInfo{TensorType::kQ2_K, "Q2_K", 256, 84},
    TypeInfo{TensorType::kQ3_K, "Q3_K", 256, 110},
    TypeInfo{TensorType::kQ4_K, "Q4_K", 256, 144},
    TypeInfo{TensorType::kQ5_K, "Q5_K", 256, 176},
    TypeInfo{TensorType::kQ6_K, "Q6_K", 256, 210},
    TypeInfo{TensorType::kIQ2_XXS, "IQ2_XXS", 256, 66},
    TypeInfo{TensorType::kIQ2_XS, "IQ2_XS", 256, 74},
    TypeInfo{TensorType::kIQ3_XXS, "IQ3_XXS", 256, 98},
    TypeInfo{TensorType::kIQ4_NL, "IQ4_NL", 32, 18},
    TypeInfo{TensorType::kIQ3_S, "IQ3_S", 256, 110},
    TypeInfo{TensorType::kIQ2_S, "IQ2_S", 256, 82},
    TypeInfo{TensorType::kIQ4_XS, "IQ4_XS", 256, 136},
    TypeInfo{TensorType::kI32, "I32", 1, 4},
    TypeInfo{TensorType::kBF16, "BF16", 1, 2},
    TypeInfo{TensorType::kMXFP4, "MXFP4", 32, 17},
};
constexpr TypeInfo kF8Info{TensorType::kF8_E4M3, "F8_E4M3", 128, 129};

}  // namespace

const TypeInfo* find_type(uint32_t gguf_id) {
  for (const TypeInfo& info : kTypes) {
    if (static_cast<uint32_t>(info.type) == gguf_id) return &info;
  }
  return nullptr;
}

const TypeInfo* find_type_by_name(const char* name) {
  for (const TypeInfo& info : kTypes) {
    if (strcasecmp(info.name, name) == 0) return &info;
  }
  return nullptr;
}

const TypeInfo& type_info(TensorType type) {
  if (type == TensorType::kF8_E4M3) return kF8Info;
  const TypeInfo* info = find_type(static_cast<uint32_t>(type));
  HEARTH_CHECK(info != nullptr);
  return *info;
}

int64_t row_bytes(TensorType type, int64_t cols) {
  const TypeInfo& info = type_info(type);
  HEARTH_CHECK(cols % info.block_size == 0);
  return cols / info.block_size * info.block_bytes;
}

}  // namespace hearth
