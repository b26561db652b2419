#include "model/linear.h"

#include <algorithm>

#include "cpu_kernels/matmul_case.h"

using namespace hearth;
using namespace hearth::test;

TEST_CASE(
    "threads share interleaved matrices by whole groups of rows, with the sums of stored ones") {
  const Workers workers(3);
  for (const Kernels* kernels : usable_kernels()) {
    if (!kernels->reads_interleaved) continue;
    for (const int64_t n : {1, 4, 5, 40}) {
      for (const bool prefill : {false, true}) {
        CAPTURE(kernels->name);
        CAPTURE(n);
        CAPTURE(prefill);
        Case c(TensorType::kQ4_K, 1040, 256, n, 5);
        c.interleave();
        Compute compute{*kernels, workers, {}, {}, prefill};
        ActivationBuffer x(*kernels, n, c.k);
        for (int64_t i = 0; i < n * c.k; ++i) x.values()[i] = c.x[i];
        std::vector<float> stored(n * c.rows), interleaved(n * c.rows);
        for (const bool is_interleaved : {false, true}) {
          const unsigned char* weights = is_interleaved ? c.interleaved->data() : c.weights.data();
          const Matrix w{c.type, c.rows, c.k, weights, is_interleaved};
          round_rows_for(compute, w, x.rows(), n);
          StageTotals totals;
          const Product product{
              w, &x.rows(), nullptr, n, (is_interleaved ? interleaved : stored).data(), c.rows};
          multiply(compute, totals, {&product, 1});
        }
        CHECK(stored == interleaved);
        CHECK(std::ranges::any_of(stored, [](float y) { return y != 0; }));
      }
    }
  }
}
