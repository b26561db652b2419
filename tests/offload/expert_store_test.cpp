#include <doctest/doctest.h>

#include <vector>

#include "offload/store/expert_store.h"

using namespace hearth;

TEST_CASE("the store groups tokens by expert, rows ascending, every pick once") {
  std::vector<unsigned char> bytes(4 * 2 * 3 * sizeof(float));
  const Matrix stack{TensorType::kF32, 8, 3, bytes.data()};  // 4 experts of 2 rows
  ExpertStore store({{stack, stack, stack}}, 4, 2, 3);
  const std::vector<int32_t> picks = {3, 1, 1, 0, 3, 1};  // three tokens, two picks each
  const GroupedExperts grouped = store.group(0, {3, 2, picks.data()});
  REQUIRE(grouped.on_cpu.size() == 3);

  int32_t next_slot = 0;
  for (const ExpertGroup& group : grouped.on_cpu) {
    CHECK(group.first_slot == next_slot);
    CHECK(group.weights.gate.rows == 2);
    CHECK(group.weights.gate.data == bytes.data() + group.expert * 2 * 3 * sizeof(float));
    for (int32_t i = 0; i < group.n; ++i) {
      CHECK(picks[group.picks[i]] == group.expert);
      CHECK(group.rows[i] == group.picks[i] / 2);
      if (i > 0) CHECK(group.rows[i] > group.rows[i - 1]);
    }
    next_slot += group.n;
  }
  CHECK(next_slot == 6);
  CHECK(grouped.on_cpu[1].expert == 1);
  CHECK(grouped.on_cpu[1].n == 3);
}
