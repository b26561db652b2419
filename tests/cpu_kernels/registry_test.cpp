#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "cpu_kernels/registry.h"

using namespace hearth;

TEST_CASE("tables are listed fastest first and end with the reference") {
  const std::vector<std::string> order = {"amx", "avx512", "avx2", "reference"};
  size_t place = 0;
  for (const Kernels* kernels : usable_kernels()) {
    while (place < order.size() && order[place] != kernels->name) ++place;
    REQUIRE(place < order.size());
  }
  CHECK(std::string(usable_kernels().back()->name) == "reference");
  CHECK(&choose_kernels("") == usable_kernels().front());
}

TEST_CASE("a forced table is the active one, and its functions are its own") {
  for (const Kernels* kernels : usable_kernels()) {
    const Kernels& forced = choose_kernels(kernels->name);
    CHECK(&forced == kernels);
    CHECK(forced.name == std::string(kernels->name));
    for (const Kernels* other : usable_kernels()) {
      if (other == kernels) continue;
      CHECK((forced.quantize != other->quantize));
      CHECK((forced.matmul != other->matmul));
      // The tile table has the rest of its functions from AVX-512's.
      if (forced.reads_bfloat16 || other->reads_bfloat16) continue;
      CHECK((forced.attention != other->attention));
    }
  }
}

TEST_CASE("every table is complete") {
  for (const Kernels* k : usable_kernels()) {
    CAPTURE(k->name);
    CHECK((k->quantize && k->matmul && k->rms_norm && k->rope && k->store_kv && k->attention));
    CHECK((k->index_scores && k->compress && k->swiglu && k->weighted_sum && k->softmax_terms &&
           k->read_bytes));
    CHECK((k->multiply_registers && k->multiply_registers(3) > 0));
  }
}

TEST_CASE("an unknown table is a usage error that lists the usable ones") {
  try {
    choose_kernels("sse9");
    FAIL("no error");
  } catch (const Error& error) {
    const std::string message = error.what();
    CHECK(error.kind() == Error::Kind::kUsage);
    CHECK(message.find("sse9") != std::string::npos);
    for (const Kernels* kernels : usable_kernels()) {
      CHECK(message.find(kernels->name) != std::string::npos);
    }
  }
}

TEST_CASE("block formats read rounded activations, plain ones do not") {
  CHECK_FALSE(reads_quantized(TensorType::kF32));
  CHECK_FALSE(reads_quantized(TensorType::kF16));
  CHECK_FALSE(reads_quantized(TensorType::kBF16));
  CHECK(reads_quantized(TensorType::kMXFP4));
  CHECK(reads_quantized(TensorType::kQ6_K));
}
