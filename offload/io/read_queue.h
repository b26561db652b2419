// Reads from files with many in flight: the kernel's ring, threads where it is refused, or a fake
// (fake_read_queue.h).
//
// One thread owns a queue. Errors of a read come with its completion. start, submit, poll and wait
// allocate nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

namespace hearth {

struct Read {
  int file;  // descriptor
  int64_t offset;
  int32_t bytes;
  unsigned char* to;  // stays valid until the read is done or the queue gone
  uint64_t tag;
};

struct ReadDone {
  uint64_t tag;
  int32_t result;  // bytes read, or -errno
};

class ReadQueue {
 public:
  // Waits for the reads in flight.
  virtual ~ReadQueue() = default;
  // Tells the queue of descriptors and memory that many reads will use, which then are faster. The
  // memory is pinned, so taken from the kernel at once. Returns the errno where the kernel refuses
  // to pin it: reads work all the same. Once, before the first read.
  virtual int prepare(std::span<const int> /*files*/,
                      std::span<const std::span<unsigned char>> /*memory*/) {
    return 0;
  }
  // At most `depth` reads may be in flight. Done by submit or wait, many at a time.
  virtual void start(const Read& read) noexcept = 0;
  // Hands started reads to the kernel, as many as it takes now; doesn't wait.
  virtual void submit() noexcept = 0;
  // The next one that is done, if any.
  virtual bool poll(ReadDone& done) noexcept = 0;
  // The next one that is done, after a submit; one must be in flight.
  virtual ReadDone wait() noexcept = 0;
};

// Null where the kernel refuses io_uring, as in many containers; `error` is then its errno.
std::unique_ptr<ReadQueue> open_uring(int depth, int& error);

// `depth` threads that each do one read at a time.
std::unique_ptr<ReadQueue> open_read_threads(int depth);

// The ring, or threads where it is not wanted or refused; then `refused` is the errno, else 0.
std::unique_ptr<ReadQueue> open_read_queue(int depth, bool use_uring, int& refused);

}  // namespace hearth
