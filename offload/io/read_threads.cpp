#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "base/check.h"
#include "offload/io/read_queue.h"

namespace hearth {
namespace {

class ReadThreads final : public ReadQueue {
 public:
  explicit ReadThreads(int depth) {
    for (int i = 0; i < depth; ++i) {
      threads_.emplace_back([this](const std::stop_token& stop) { serve(stop); });
    }
  }
  // The threads finish what was started before they end.
  ~ReadThreads() override {
    for (std::jthread& thread : threads_) thread.request_stop();
    threads_.clear();
  }
  ReadThreads(const ReadThreads&) = delete;
  ReadThreads& operator=(const ReadThreads&) = delete;

  void start(const Read& read) override {
    HEARTH_CHECK(in_flight_ < std::ssize(threads_));
    ++in_flight_;
    {
      const std::lock_guard lock(mutex_);
      waiting_.push_back(read);
    }
    started_.notify_one();
  }

  ReadDone wait() override {
    HEARTH_CHECK(in_flight_ > 0);
    std::unique_lock lock(mutex_);
    finished_.wait(lock, [this] { return !done_.empty(); });
    const ReadDone done = done_.front();
    done_.pop_front();
    --in_flight_;
    return done;
  }

 private:
  void serve(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (started_.wait(lock, stop, [this] { return !waiting_.empty(); })) {
      const Read read = waiting_.front();
      waiting_.pop_front();
      lock.unlock();
      const ReadDone done{read.tag, run(read)};
      lock.lock();
      done_.push_back(done);
      finished_.notify_one();
    }
  }

  static int32_t run(const Read& read) {
    for (;;) {
      const ssize_t got = ::pread(read.file, read.to, static_cast<size_t>(read.bytes), read.offset);
      if (got >= 0) return static_cast<int32_t>(got);
      if (errno != EINTR) return -errno;
    }
  }

  std::mutex mutex_;
  std::condition_variable_any started_;
  std::condition_variable finished_;
  std::deque<Read> waiting_;
  std::deque<ReadDone> done_;
  int in_flight_ = 0;  // of the owner's thread only
  std::vector<std::jthread> threads_;
};

}  // namespace

std::unique_ptr<ReadQueue> open_read_threads(int depth) {
  return std::make_unique<ReadThreads>(depth);
}

}  // namespace hearth
