// Rows of embedding tables of every type, against the formats' own definitions.
#include "cpu_kernels/matmul_case.h"
#include "gpu_kernels/gpu.h"
#include "support.h"

using namespace hearth;
using namespace hearth::test;

namespace {

constexpr int64_t kVocab = 11;

// The embeddings of `tokens`; `before` bytes move the table off its alignment.
std::vector<float> embed(Case& c, const std::vector<int32_t>& tokens, int32_t streams,
                         size_t before) {
  Gpu gpu(before + 1);
  const size_t bytes = kVocab * row_bytes(c.type, c.k), count = tokens.size() * streams * c.k;
  float* out = gpu.allocate<float>(count);
  gpu.kernels().embed({.table = {c.type, kVocab, c.k, gpu.upload(c.weights.data(), bytes, before)},
                       .tokens = gpu.upload(tokens),
                       .n = std::ssize(tokens),
                       .streams = streams,
                       .out = out},
                      gpu.stream());
  return gpu.download(out, count);
}

}  // namespace

TEST_CASE("embed: each stream of a token is its row of the table, in every format") {
  const std::vector<int32_t> tokens = {3, 0, 10, 10, 7};
  for (const auto& list : {kPlainTypes, kBlockTypes}) {
    for (const TensorType type : list) {
      if (!Gpu().kernels().multiplies(type)) continue;
      const int block = type_info(type).block_size;
      for (const int64_t dim : {block, 3 * block, 1024 + 2 * block, 2304}) {
        const int64_t width = dim / block * block;
        Case c(type, kVocab, width, 1, 7);
        for (const int32_t streams : {1, 4}) {
          CAPTURE(type_info(type).name);
          CAPTURE(width);
          std::vector<float> expected;
          for (const int32_t token : tokens) {
            std::vector<float> row(width);
            dequantize(type, c.weights.data() + token * row_bytes(type, width), width, row.data());
            for (int32_t s = 0; s < streams; ++s) {
              expected.insert(expected.end(), row.begin(), row.end());
            }
          }
          const size_t end = (16 - kVocab * row_bytes(type, width) % 16) % 16;
          const size_t before = streams == 1 ? end : static_cast<size_t>(width / 2 % 13);
          CHECK(max_difference(expected, embed(c, tokens, streams, before)) < 1e-6);
        }
      }
    }
  }
}

TEST_CASE("embed without tokens does nothing") { Gpu().kernels().embed({}, nullptr); }
