#include "model/device/logit_row.h"

#include <algorithm>
#include <cstring>

#include "base/softmax.h"

namespace hearth {
namespace {

// Then the rest comes at once: a copy and the wait for it take as long as many blocks do.
constexpr int64_t kCopiesMax = 8;

int64_t blocks_of(int64_t vocab) { return (vocab + kSoftmaxBlock - 1) / kSoftmaxBlock; }

}  // namespace

int64_t summary_floats(int64_t vocab) { return 2 + blocks_of(vocab); }

int64_t logit_row_pinned_bytes(int64_t vocab) {
  return summary_floats(vocab) * int64_t{sizeof(float)};
}

DeviceLogitRow::DeviceLogitRow(Device& device, const Stream& stream, int64_t vocab,
                               const float* logits, float* summary, float* host)
    : device_(device),
      stream_(stream),
      vocab_(vocab),
      logits_(logits),
      summary_(summary),
      host_(host),
      brought_summary_(device.allocate_pinned(static_cast<size_t>(logit_row_pinned_bytes(vocab)))),
      is_here_(blocks_of(vocab)) {}

void DeviceLogitRow::renew() {
  std::ranges::fill(is_here_, uint8_t{0});
  copies_ = 0;
}

const float* DeviceLogitRow::summarize(float steepness, size_t sums) {
  device_.kernels().argmax({.logits = logits_,
                            .n = 1,
                            .vocab = vocab_,
                            .tokens = reinterpret_cast<int32_t*>(summary_),
                            .scale = steepness,
                            .largest = summary_ + 1,
                            .sums = sums > 0 ? summary_ + 2 : nullptr},
                           stream_.handle());
  device_.copy_to_host(brought_summary_.data(), summary_, (2 + sums) * sizeof(float), stream_);
  device_.synchronize(stream_);
  return brought_summary_.as<float>();
}

int32_t DeviceLogitRow::likeliest() {
  int32_t token = 0;
  std::memcpy(&token, summarize(1, 0), sizeof(token));
  return token;
}

float DeviceLogitRow::add_up(float steepness, std::span<float> sums) {
  const float* summary = summarize(steepness, sums.size());
  std::copy_n(summary + 2, sums.size(), sums.begin());
  return summary[1];
}

std::span<const float> DeviceLogitRow::block(int64_t index) {
  const int64_t first = index * kSoftmaxBlock;
  const int64_t count = std::min<int64_t>(kSoftmaxBlock, vocab_ - first);
  if (is_here_[index] == 0) {
    const bool is_one_more = copies_++ < kCopiesMax;
    const int64_t begin = is_one_more ? first : 0, wanted = is_one_more ? count : vocab_;
    bring(begin, wanted);
    make_finite({host_ + begin, static_cast<size_t>(wanted)});
    std::fill_n(is_here_.begin() + begin / kSoftmaxBlock, blocks_of(wanted), uint8_t{1});
  }
  return {host_ + first, static_cast<size_t>(count)};
}

std::span<const float> DeviceLogitRow::all() {
  bring(0, vocab_);
  renew();  // blocks are to be made finite
  return {host_, static_cast<size_t>(vocab_)};
}

void DeviceLogitRow::bring(int64_t first, int64_t count) {
  device_.copy_to_host(host_ + first, logits_ + first, static_cast<size_t>(count) * sizeof(float),
                       stream_);
  device_.synchronize(stream_);
}

}  // namespace hearth
