#include <liburing.h>

#include <cerrno>

#include "base/check.h"
#include "offload/io/read_queue.h"

namespace hearth {
namespace {

class Uring final : public ReadQueue {
 public:
  // `error`: 0, or the errno of what was refused.
  Uring(int depth, int& error) : depth_(depth) {
    error = -io_uring_queue_init(static_cast<unsigned>(depth), &ring_, 0);
    is_open_ = error == 0;
  }
  ~Uring() override {
    if (!is_open_) return;
    while (in_flight_ > 0) wait();  // the kernel writes into the caller's memory until then
    io_uring_queue_exit(&ring_);
  }
  Uring(const Uring&) = delete;
  Uring& operator=(const Uring&) = delete;

  void start(const Read& read) override {
    HEARTH_CHECK(in_flight_ < depth_);
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    HEARTH_CHECK(entry != nullptr);
    io_uring_prep_read(entry, read.file, read.to, static_cast<unsigned>(read.bytes),
                       static_cast<uint64_t>(read.offset));
    entry->user_data = read.tag;
    ++in_flight_;
  }

  // Started reads are handed to the kernel here, several with one call.
  ReadDone wait() override {
    HEARTH_CHECK(in_flight_ > 0);
    io_uring_cqe* entry = nullptr;
    while (io_uring_peek_cqe(&ring_, &entry) != 0 || io_uring_sq_ready(&ring_) > 0) {
      const int result = io_uring_submit_and_wait(&ring_, entry == nullptr ? 1 : 0);
      HEARTH_CHECK(result >= 0 || result == -EINTR || result == -EAGAIN || result == -EBUSY);
    }
    const ReadDone done{entry->user_data, entry->res};
    io_uring_cqe_seen(&ring_, entry);
    --in_flight_;
    return done;
  }

 private:
  const int depth_;
  int in_flight_ = 0;
  bool is_open_ = false;
  io_uring ring_{};
};

}  // namespace

std::unique_ptr<ReadQueue> open_uring(int depth, int& error) {
  auto queue = std::make_unique<Uring>(depth, error);
  if (error != 0) return nullptr;
  return queue;
}

}  // namespace hearth
