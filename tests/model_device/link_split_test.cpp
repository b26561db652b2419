// Which experts go over the link.
#include "model/device/link_split.h"

#include <doctest/doctest.h>

#include <vector>

using namespace hearth;

namespace {

constexpr ExpertSize kSize{2'000'000'000, 1'000'000'000};  // 1 s to send at 2 GB/s
constexpr int32_t kTokens[] = {40, 30, 20, 10, 5, 1};

}  // namespace

TEST_CASE("link split: both sides end at about the same time") {
  // The CPU takes a second to read an expert and a second for ten tokens: 16.6 s in all.
  const LinkRates rates{2, 2, 20};
  // Three leave the CPU 4.6 s, four 2.6 s beside 4 s of the link, five take the link 5 s.
  CHECK(count_to_send(kTokens, kSize, rates) == 4);
  // At 5 s each: one leaves the CPU 11.6 s, two take the link 10 s, three 15 s.
  CHECK(count_to_send(kTokens, kSize, {0.4, 2, 20}) == 2);
}

TEST_CASE("link split: a slow link takes none, a fast one all") {
  CHECK(count_to_send(kTokens, kSize, {0.01, 2, 20}) == 0);
  CHECK(count_to_send(kTokens, kSize, {1e9, 2, 20}) == 6);
  CHECK(count_to_send({}, kSize, {2, 2, 20}) == 0);
}

TEST_CASE("link split: tokens that decode send only what memory gives beyond the CPU") {
  const int32_t each[] = {1, 1, 1, 1};  // a second each on the CPU
  CHECK(count_to_send(each, kSize, {2, 2, 1e9}) == 2);
  // A CPU that reads a fifth as fast beside copies takes 5 s for one of them, 4 s for all alone.
  CHECK(count_to_send(each, kSize, {1.9, 2, 1e9, 0.4}) == 0);
  CHECK(count_to_send(each, kSize, {2, 2, 1e9, 1.9}) == 2);
  CHECK(count_to_send(each, kSize, {2, 2, 1e9, 1.9, 1.8}) == 2);
  CHECK(count_to_send(each, kSize, {2, 2, 1e9, 1.9, 1.95}) == 0);
  // One would not pay for the start.
  CHECK(count_to_send(each, kSize, {4, 2, 1e9, 2, 1.5}) == 3);
}

TEST_CASE("link split: of one expert the faster side") {
  const int32_t one[] = {10};  // 2 s on the CPU
  CHECK(count_to_send(one, kSize, {1.1, 2, 20}) == 1);
  CHECK(count_to_send(one, kSize, {0.9, 2, 20}) == 0);
}
