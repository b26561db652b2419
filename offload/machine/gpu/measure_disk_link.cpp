#include "offload/machine/gpu/measure_disk_link.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <random>
#include <system_error>
#include <utility>
#include <vector>

#include "base/buffer.h"
#include "base/check.h"
#include "base/error.h"
#include "offload/io/disk_probe.h"
#include "offload/io/reader.h"
#include "offload/machine/timing.h"

namespace hearth {
namespace {

PinnedRange pin_all(Device& device, const Buffer& memory) {
  Pinning pinning = device.pin(memory.data(), memory.bytes());
  if (!pinning.why_not.empty()) {
    throw Error("memory can't be pinned: " + pinning.why_not, device.name(),
                "Raise the limit (ulimit -l)");
  }
  return std::move(pinning.range);
}

// Blocks of memory, each with a place on the device: idle, being read, or being copied there.
class DiskLinkMeter {
 public:
  DiskLinkMeter(Device& device, const ScratchFile& file, std::string where,
                const DiskLinkProbe& probe)
      : device_(device),
        where_(std::move(where)),
        probe_(probe),
        file_blocks_(file.bytes() / probe.block_bytes),
        memory_(static_cast<size_t>(probe.blocks * probe.block_bytes)),
        pinned_(pin_all(device, memory_)),
        places_(device.allocate(memory_.bytes())),
        stream_(device.create_stream()) {
    for (int32_t i = 0; i < probe.blocks; ++i)
      blocks_.push_back({State::kIdle, device.create_event()});
    ReaderOptions options;
    options.requests_max = probe.blocks;
    options.memory = {{memory_.data(), memory_.bytes()}};
    // The file has no name but that of its descriptor.
    reader_ = open_reader({{fmt::format("/proc/self/fd/{}", file.descriptor())}}, options).reader;
  }
  ~DiskLinkMeter() { device_.synchronize(); }

  // GB/s of whole blocks that go part of the way, or all of it.
  double rate(bool reads, bool copies) {
    using Clock = std::chrono::steady_clock;
    int64_t begun = 0;
    const double seconds = seconds_of([&] {
      const auto end = Clock::now() + std::chrono::duration<double>(probe_.seconds);
      do {
        begun += begin_idle(reads, copies, begun < probe_.blocks || Clock::now() < end);
      } while (advance(copies));
    });
    return 1e-9 * static_cast<double>(begun * probe_.block_bytes) / seconds;
  }

  // Whether the device has what the disk gave, in the blocks that were used last.
  void check_arrived() {
    std::vector<unsigned char> there(memory_.bytes());
    device_.copy_to_host(there.data(), places_.data(), there.size(), stream_);
    device_.synchronize(stream_);
    if (std::memcmp(there.data(), memory_.data(), there.size()) == 0) return;
    throw Error("what was copied there is not what was read", device_.name(),
                "Check the GPU's driver and the memory");
  }

 private:
  enum class State : uint8_t { kIdle, kReading, kCopying };
  struct Block {
    State state;
    Event copied;
  };

  // Copies that are done free their blocks; all that are idle go on their way. Returns how many.
  int64_t begin_idle(bool reads, bool copies, bool go_on) {
    int64_t begun = 0;
    for (int32_t i = 0; i < probe_.blocks; ++i) {
      Block& block = blocks_[i];
      if (block.state == State::kCopying && device_.done(block.copied)) block.state = State::kIdle;
      if (block.state != State::kIdle || !go_on) continue;
      ++begun;
      if (reads) {
        read(i);
      } else if (copies) {
        copy(i);
      }
    }
    return begun;
  }

  // Waits for a block to come further; false where none is on its way.
  bool advance(bool copies) {
    if (reader_->in_flight() > 0) {
      const ReadResult result = reader_->wait();
      if (result.error != 0) {
        throw Error("can't be read: " + std::generic_category().message(result.error), where_,
                    "Check the disk");
      }
      const auto arrived = static_cast<int32_t>(result.tag);
      blocks_[arrived].state = State::kIdle;
      if (copies) copy(arrived);
      return true;
    }
    const auto copying = std::ranges::find(blocks_, State::kCopying, &Block::state);
    if (copying == blocks_.end()) return false;
    device_.synchronize(copying->copied);
    return true;
  }

  unsigned char* at(int32_t block) { return memory_.data() + block * probe_.block_bytes; }

  void read(int32_t block) {
    blocks_[block].state = State::kReading;
    reader_->start({.file = 0,
                    .offset = static_cast<int64_t>(random_() % file_blocks_) * probe_.block_bytes,
                    .bytes = probe_.block_bytes,
                    .to = at(block),
                    .tag = static_cast<uint64_t>(block)});
  }

  void copy(int32_t block) {
    blocks_[block].state = State::kCopying;
    device_.copy_to_device(places_.data() + block * probe_.block_bytes, at(block),
                           static_cast<size_t>(probe_.block_bytes), stream_);
    device_.record(blocks_[block].copied, stream_);
  }

  Device& device_;
  const std::string where_;
  const DiskLinkProbe probe_;
  const uint64_t file_blocks_;
  std::mt19937_64 random_{7};
  Buffer memory_;
  PinnedRange pinned_;
  DeviceBuffer places_;
  Stream stream_;
  std::vector<Block> blocks_;
  std::unique_ptr<Reader> reader_;  // last, so that it goes first: reads may be under way
};

}  // namespace

DiskLinkRates measure_disk_link(Device& device, const std::filesystem::path& folder,
                                const DiskLinkProbe& probe) {
  HEARTH_CHECK(ScratchFile::kWriteBytes % probe.block_bytes == 0 &&
               probe.block_bytes % Reader::kAlignment == 0 && probe.blocks > 0);
  ScratchFile file(folder);
  const int64_t bytes_max = scratch_bytes(file.free_bytes(), probe.file_bytes);
  if (bytes_max == 0) {
    throw Error("too little is free to measure with", folder.string(),
                "Name a folder on another disk");
  }
  file.fill(ScratchFile::kWriteBytes, bytes_max, probe.write_seconds);
  DiskLinkMeter meter(device, file, folder.string(), probe);
  DiskLinkRates rates{};
  rates.disk = meter.rate(true, false);
  rates.link = meter.rate(false, true);
  rates.both = meter.rate(true, true);
  meter.check_arrived();
  return rates;
}

}  // namespace hearth
