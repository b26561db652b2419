// The terms of a softmax over the vocabulary, as CPU and GPU compute them to the same bits: so a
// draw falls on the same token, wherever the sums are taken.
//
// exp t of t <= 0: t = k ln 2 + r, k the integer nearest to t / ln 2, then the Taylor series of
// exp r up to r^7, whose rest is below 6e-9, by Horner's rule, times 2^k. Below kExpLowest it is 0;
// there 2^k would leave the range of normal numbers.
//
// The sum of a block: lane i of kSoftmaxLanes adds the terms i, i + kSoftmaxLanes and so on, in
// turn; then the upper half of the lanes is added to the lower one, until one is left.
#pragma once

#include <cstdint>

namespace hearth {

constexpr int32_t kSoftmaxLanes = 16;
constexpr int32_t kSoftmaxBlock = 256;  // tokens whose terms are added up together

constexpr float kExpLowest = -87;
constexpr float kPerLn2 = 1.44269504f;
constexpr float kLn2High = 0.693359375f;  // of few bits: k times it is exact
constexpr float kLn2Low = -2.12194440e-4f;
constexpr float kExp7 = 1.0f / 5040, kExp6 = 1.0f / 720, kExp5 = 1.0f / 120, kExp4 = 1.0f / 24,
                kExp3 = 1.0f / 6, kExp2 = 1.0f / 2;

}  // namespace hearth
