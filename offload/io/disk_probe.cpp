#include "offload/io/disk_probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <system_error>

#include "base/buffer.h"
#include "base/error.h"
#include "offload/io/reader.h"
#include "offload/io/scratch_file.h"

namespace hearth {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kLeastBytes = 64 << 20;  // less would lie in the disk's own cache
constexpr int64_t kSlowBytes = 16 << 20;   // written in any case, however long it takes

double seconds_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

// Reads random blocks of one size, `depth` in flight, for some time.
class BlockReader {
 public:
  BlockReader(int descriptor, int64_t bytes, std::unique_ptr<ReadQueue> queue, int64_t block,
              int depth, const std::string& where)
      : descriptor_(descriptor),
        bytes_(bytes),
        block_(block),
        where_(where),
        memory_(static_cast<size_t>(block * depth)),
        started_(static_cast<size_t>(depth)),
        queue_(std::move(queue)) {}

  DiskRate measure(double seconds) {
    const auto begin = Clock::now();
    const auto end = begin + std::chrono::duration<double>(seconds);
    int64_t reads = 0;
    double waited = 0;
    size_t in_flight = 0;
    for (size_t slot = 0; slot < started_.size(); ++slot, ++in_flight) start(slot);
    while (in_flight > 0) {
      const ReadDone done = queue_->wait();
      const auto time = Clock::now();
      if (done.result != block_) fail(done.result);
      waited += seconds_between(started_[done.tag], time);
      ++reads;
      if (time < end) {
        start(done.tag);
      } else {
        --in_flight;
      }
    }
    const double taken = seconds_between(begin, Clock::now());
    return {.block_bytes = block_,
            .depth = static_cast<int32_t>(started_.size()),
            .read_gb_s = static_cast<double>(reads * block_) / taken * 1e-9,
            .latency_us = waited / static_cast<double>(reads) * 1e6};
  }

 private:
  void start(size_t slot) {
    const auto blocks = static_cast<uint64_t>(bytes_ / block_);
    started_[slot] = Clock::now();
    queue_->start({.file = descriptor_,
                   .offset = static_cast<int64_t>(random_() % blocks) * block_,
                   .bytes = static_cast<int32_t>(block_),
                   .to = memory_.data() + static_cast<int64_t>(slot) * block_,
                   .tag = slot});
  }

  [[noreturn]] void fail(int32_t result) const {
    const std::string why = result < 0 ? std::generic_category().message(-result)
                                       : fmt::format("{} of {} bytes came", result, block_);
    throw Error("can't be read past the page cache: " + why, where_, "Check the disk");
  }

  const int descriptor_;
  const int64_t bytes_;
  const int64_t block_;
  const std::string where_;
  const Buffer memory_;
  std::vector<Clock::time_point> started_;  // by slot
  std::mt19937_64 random_{7};
  std::unique_ptr<ReadQueue> queue_;  // last, so that it goes first: reads may be in flight
};

std::unique_ptr<ReadQueue> open_queue(int depth, bool use_uring, std::vector<std::string>& notes) {
  int refused = 0;
  auto queue = open_read_queue(depth, use_uring, refused);
  if (refused != 0) {
    const std::string note = fmt::format(
        "the kernel refuses io_uring ({}): the disk was read by threads, "
        "which small blocks are slower with",
        std::generic_category().message(refused));
    if (std::ranges::find(notes, note) == notes.end()) notes.push_back(note);
  }
  return queue;
}

}  // namespace

DiskProbeOptions full_disk_probe() {
  DiskProbeOptions options;
  options.blocks = {4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 2 << 20, 4 << 20};
  options.depths = {1, 4, 16, 32};
  return options;
}

DiskProbeOptions quick_disk_probe() {
  DiskProbeOptions options;
  options.blocks = {4 << 10, 2 << 20};  // the latter as experts are read
  options.depths = {1, 16};
  options.write_seconds = 0.8;
  options.seconds_max = 2;
  options.bytes_max = 512 << 20;
  return options;
}

int64_t scratch_bytes(int64_t free_bytes, int64_t bytes_max) {
  const int64_t bytes = std::min(bytes_max, free_bytes / 4);
  return bytes < kLeastBytes ? 0 : bytes / ScratchFile::kWriteBytes * ScratchFile::kWriteBytes;
}

DiskProbeResult probe_disk(const std::filesystem::path& folder, const DiskProbeOptions& options,
                           const std::function<void(int, int)>& on_step) {
  ScratchFile file(folder);
  const int64_t bytes_max = scratch_bytes(file.free_bytes(), options.bytes_max);
  if (bytes_max == 0) {
    throw Error(
        fmt::format("only {} MiB are free", file.free_bytes() >> 20), folder.string(),
        fmt::format("Free {} MiB, or name a folder on another disk", 4 * kLeastBytes >> 20));
  }
  const auto begin = Clock::now();
  file.fill(kSlowBytes, bytes_max, options.write_seconds);

  DiskProbeResult result;
  result.file_bytes = file.bytes();
  if (file.bytes() < std::min(kLeastBytes, bytes_max)) {
    result.notes.push_back(
        "the disk writes slowly: so small a file may lie in its own cache, and "
        "be read faster than the disk is");
  }
  const int points = static_cast<int>(options.blocks.size() * options.depths.size());
  const std::string where = folder.string();
  for (const int64_t block : options.blocks) {
    for (const int depth : options.depths) {
      if (!result.rates.empty() && seconds_between(begin, Clock::now()) > options.seconds_max) {
        result.notes.push_back(fmt::format("the disk is slow: {} of {} figures were left out",
                                           points - std::ssize(result.rates), points));
        return result;
      }
      if (on_step) on_step(static_cast<int>(result.rates.size()), points);
      auto queue = open_queue(depth, options.use_uring, result.notes);
      BlockReader reader(file.descriptor(), file.bytes(), std::move(queue), block, depth, where);
      result.rates.push_back(reader.measure(options.seconds));
    }
  }
  return result;
}

DiskRate probe_file(const std::filesystem::path& path, double seconds) {
  const ReaderOptions usual;
  std::vector<std::string> notes;
  const SourceFile file(path.string(), true, notes);
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(path));
  const int64_t block =
      std::min(usual.piece_bytes, bytes / Reader::kAlignment * Reader::kAlignment);
  if (block == 0) throw Error("is too small to measure", path.string(), "Name a larger file");
  int refused = 0;
  auto queue = open_read_queue(usual.depth, usual.use_uring, refused);
  BlockReader reader(file.descriptor(), bytes, std::move(queue), block, usual.depth, path.string());
  return reader.measure(seconds);
}

}  // namespace hearth
