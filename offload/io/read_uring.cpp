#include <liburing.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "offload/io/read_queue.h"

namespace hearth {
namespace {

// Completions are posted when the owner enters the kernel, never by interrupting what it computes.
constexpr unsigned kRingFlags = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG;

constexpr size_t kPinnedBytesMax = size_t{1} << 30;  // of one entry: the kernel's limit

// What the kernel says while it is short of something: the call may be repeated.
bool is_passing(int result) { return result == -EINTR || result == -EAGAIN || result == -EBUSY; }

class Uring final : public ReadQueue {
 public:
  // `error`: 0, or the errno of what was refused.
  Uring(int depth, int& error) : depth_(depth) {
    error = -io_uring_queue_init(static_cast<unsigned>(depth), &ring_, kRingFlags);
    if (error == EINVAL) {  // a kernel before 5.19 doesn't know the flags
      error = -io_uring_queue_init(static_cast<unsigned>(depth), &ring_, 0);
    }
    is_open_ = error == 0;
  }
  ~Uring() override {
    if (!is_open_) return;
    while (in_flight_ > 0) wait();  // the kernel writes into the caller's memory until then
    io_uring_queue_exit(&ring_);
  }
  Uring(const Uring&) = delete;
  Uring& operator=(const Uring&) = delete;

  int prepare(std::span<const int> files,
              std::span<const std::span<unsigned char>> memory) override {
    HEARTH_CHECK(in_flight_ == 0 && pinned_.empty() && slots_.empty());
    register_files(files);
    return pin(memory);
  }

  void start(const Read& read) noexcept override {
    HEARTH_CHECK(in_flight_ < depth_);
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    HEARTH_CHECK(entry != nullptr);
    const int slot = slot_of(read.file);
    const int file = slot < 0 ? read.file : slot;
    const auto bytes = static_cast<unsigned>(read.bytes);
    const auto offset = static_cast<uint64_t>(read.offset);
    if (const int pinned = pinned_entry(read); pinned >= 0) {
      io_uring_prep_read_fixed(entry, file, read.to, bytes, offset, pinned);
    } else {
      io_uring_prep_read(entry, file, read.to, bytes, offset);
    }
    if (slot >= 0) entry->flags |= IOSQE_FIXED_FILE;
    entry->user_data = read.tag;
    ++in_flight_;
  }

  void submit() noexcept override {
    if (io_uring_sq_ready(&ring_) == 0) return;
    const int result = io_uring_submit(&ring_);
    HEARTH_CHECK(result >= 0 || is_passing(result));
  }

  bool poll(ReadDone& done) noexcept override {
    io_uring_cqe* entry = nullptr;
    if (in_flight_ == 0 || io_uring_peek_cqe(&ring_, &entry) != 0) return false;
    done = take(entry);
    return true;
  }

  ReadDone wait() noexcept override {
    HEARTH_CHECK(in_flight_ > 0);
    io_uring_cqe* entry = nullptr;
    while (io_uring_peek_cqe(&ring_, &entry) != 0 || io_uring_sq_ready(&ring_) > 0) {
      const int result = io_uring_submit_and_wait(&ring_, entry == nullptr ? 1 : 0);
      HEARTH_CHECK(result >= 0 || is_passing(result));
      if (entry != nullptr) break;  // what is done doesn't wait for what the kernel can't take yet
    }
    return take(entry);
  }

 private:
  struct Pinned {
    unsigned char* begin;
    unsigned char* end;
  };

  ReadDone take(io_uring_cqe* entry) noexcept {
    const ReadDone done{entry->user_data, entry->res};
    io_uring_cqe_seen(&ring_, entry);
    --in_flight_;
    return done;
  }

  // A refusal is no failure: the kernel then looks each descriptor up at every read.
  void register_files(std::span<const int> files) {
    if (files.empty() ||
        io_uring_register_files(&ring_, files.data(), static_cast<unsigned>(files.size())) != 0) {
      return;
    }
    slots_.assign(static_cast<size_t>(*std::ranges::max_element(files)) + 1, -1);
    for (size_t i = 0; i < files.size(); ++i) {
      slots_[static_cast<size_t>(files[i])] = static_cast<int>(i);
    }
  }

  int pin(std::span<const std::span<unsigned char>> memory) {
    std::vector<Pinned> pieces;
    for (const std::span<unsigned char> area : memory) {
      for (size_t at = 0; at < area.size(); at += kPinnedBytesMax) {
        unsigned char* begin = area.data() + at;
        pieces.push_back({begin, begin + std::min(kPinnedBytesMax, area.size() - at)});
      }
    }
    std::ranges::sort(pieces, {}, &Pinned::begin);
    std::vector<iovec> entries;
    for (const Pinned& piece : pieces) {
      entries.push_back({piece.begin, static_cast<size_t>(piece.end - piece.begin)});
    }
    if (entries.empty()) return 0;
    const int result =
        io_uring_register_buffers(&ring_, entries.data(), static_cast<unsigned>(entries.size()));
    if (result == 0) pinned_ = std::move(pieces);
    return -result;
  }

  int slot_of(int file) const noexcept {
    return file >= 0 && file < std::ssize(slots_) ? slots_[static_cast<size_t>(file)] : -1;
  }

  // -1 where no entry holds all of it: such a read goes unpinned.
  int pinned_entry(const Read& read) const noexcept {
    const auto after = std::ranges::upper_bound(pinned_, read.to, {}, &Pinned::begin);
    if (after == pinned_.begin()) return -1;
    const auto entry = after - 1;
    return read.to + read.bytes <= entry->end ? static_cast<int>(entry - pinned_.begin()) : -1;
  }

  const int depth_;
  int in_flight_ = 0;
  bool is_open_ = false;
  io_uring ring_{};
  std::vector<int> slots_;      // by descriptor: its place among the registered ones, or -1
  std::vector<Pinned> pinned_;  // by address
};

}  // namespace

std::unique_ptr<ReadQueue> open_uring(int depth, int& error) {
  auto queue = std::make_unique<Uring>(depth, error);
  if (error != 0) return nullptr;
  return queue;
}

}  // namespace hearth
