// Reads from a file with many in flight: the kernel's ring, or threads where it is refused.
//
// One thread owns a queue. Errors of a read come with its completion.
#pragma once

#include <cstdint>
#include <memory>

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
  // At most `depth` reads may be in flight.
  virtual void start(const Read& read) = 0;
  // The next one that is done; one must be in flight.
  virtual ReadDone wait() = 0;
};

// Null where the kernel refuses io_uring, as in many containers; `error` is then its errno.
std::unique_ptr<ReadQueue> open_uring(int depth, int& error);

// `depth` threads that each do one read at a time.
std::unique_ptr<ReadQueue> open_read_threads(int depth);

}  // namespace hearth
