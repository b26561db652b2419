#include "offload/io/read_queue.h"

namespace hearth {

std::unique_ptr<ReadQueue> open_read_queue(int depth, bool use_uring, int& refused) {
  refused = 0;
  if (use_uring) {
    if (auto queue = open_uring(depth, refused)) return queue;
  }
  return open_read_threads(depth);
}

}  // namespace hearth
