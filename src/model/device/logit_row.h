// A row of logits in a device's memory: what a draw needs of all of them is computed there and
// comes down in one small copy, blocks of tokens follow as they are asked for.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "device/device.h"
#include "model/logit_row.h"

namespace hearth {

// Floats of a row's summary: its likeliest token, that one's logit, the sums of its blocks.
int64_t summary_floats(int64_t vocab);

class DeviceLogitRow final : public LogitRow {
 public:
  // `logits` [vocab] and `summary` [summary_floats(vocab)] on the device, in the stream that fills
  // the logits; `host` [vocab] is pinned, where they come to. All must outlive the object.
  DeviceLogitRow(Device& device, const Stream& stream, int64_t vocab, const float* logits,
                 float* summary, float* host);
  // The logits are others now.
  void renew();
  int64_t pinned_bytes() const { return static_cast<int64_t>(brought_summary_.bytes()); }

  int64_t vocab() const override { return vocab_; }
  int32_t likeliest() override;
  float add_up(float steepness, std::span<float> sums) override;
  std::span<const float> block(int64_t index) override;
  std::span<const float> all() override;

 private:
  // Takes the summary, with as many sums.
  const float* summarize(float steepness, size_t sums);
  void bring(int64_t first, int64_t count);

  Device& device_;
  const Stream& stream_;
  const int64_t vocab_;
  const float* const logits_;
  float* const summary_;
  float* const host_;
  PinnedBuffer brought_summary_;
  std::vector<uint8_t> is_here_;  // by block
  int64_t copies_ = 0;            // of blocks
};

// The pinned bytes that a DeviceLogitRow allocates.
int64_t logit_row_pinned_bytes(int64_t vocab);

}  // namespace hearth
