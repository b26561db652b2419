// Any bytes as a GGUF file: a header that parses without a problem must describe only bytes that
// are there.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "format/dequantize.h"
#include "format/gguf_header.h"

namespace {

void check_tensor(const hearth::TensorEntry& tensor, const uint8_t* data, size_t size) {
  HEARTH_CHECK(!tensor.name.empty() && !tensor.dims.empty() && tensor.dims.size() <= 4);
  int64_t rows = 1;
  for (size_t d = 0; d < tensor.dims.size(); ++d) {
    HEARTH_CHECK(tensor.dims[d] > 0);
    if (d > 0) rows *= tensor.dims[d];
  }
  const uint64_t bytes =
      static_cast<uint64_t>(rows * hearth::row_bytes(tensor.type, tensor.dims[0]));
  HEARTH_CHECK(tensor.bytes == bytes);
  HEARTH_CHECK(tensor.offset <= size && bytes <= size - tensor.offset);
  HEARTH_CHECK(tensor.data == data + tensor.offset);
  // Touches the last block.
  const hearth::TypeInfo& info = hearth::type_info(tensor.type);
  float values[256];
  hearth::dequantize(tensor.type, tensor.data + bytes - static_cast<uint64_t>(info.block_bytes),
                     info.block_size, values);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  hearth::Problems problems("input");
  const hearth::GgufHeader header = hearth::parse_gguf_header({data, size}, "", problems);
  HEARTH_CHECK(header.complete == problems.empty());
  if (header.complete) {
    for (const hearth::TensorEntry& tensor : header.tensors) check_tensor(tensor, data, size);
    return 0;
  }
  try {
    problems.throw_if_any("");
  } catch (const hearth::Error&) {
  }
  return 0;
}
