#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "base/check.h"
#include "offload/io/read_queue.h"

namespace hearth {
namespace {

// First in, first out; as large as it was made.
template <typename T>
class Line {
 public:
  explicit Line(int size) : slots_(static_cast<size_t>(size)) {}
  bool empty() const { return count_ == 0; }
  void push(const T& value) {
    HEARTH_CHECK(count_ < slots_.size());
    slots_[(first_ + count_++) % slots_.size()] = value;
  }
  T pop() {
    const T value = slots_[first_];
    first_ = (first_ + 1) % slots_.size();
    --count_;
    return value;
  }

 private:
  std::vector<T> slots_;
  size_t first_ = 0;
  size_t count_ = 0;
};

class ReadThreads final : public ReadQueue {
 public:
  explicit ReadThreads(int depth) : waiting_(depth), done_(depth) {
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

  void start(const Read& read) noexcept override {
    HEARTH_CHECK(in_flight_ < std::ssize(threads_));
    ++in_flight_;
    {
      const std::lock_guard lock(mutex_);
      waiting_.push(read);
    }
    started_.notify_one();
  }

  // Threads take what is started at once.
  void submit() noexcept override {}

  bool poll(ReadDone& done) noexcept override {
    const std::lock_guard lock(mutex_);
    if (done_.empty()) return false;
    done = take();
    return true;
  }

  ReadDone wait() noexcept override {
    HEARTH_CHECK(in_flight_ > 0);
    std::unique_lock lock(mutex_);
    finished_.wait(lock, [this] { return !done_.empty(); });
    return take();
  }

 private:
  // With the lock.
  ReadDone take() {
    --in_flight_;
    return done_.pop();
  }

  void serve(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (started_.wait(lock, stop, [this] { return !waiting_.empty(); })) {
      const Read read = waiting_.pop();
      lock.unlock();
      const ReadDone done{read.tag, run(read)};
      lock.lock();
      done_.push(done);
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
  Line<Read> waiting_;
  Line<ReadDone> done_;
  int in_flight_ = 0;  // of the owner's thread only
  std::vector<std::jthread> threads_;
};

}  // namespace

std::unique_ptr<ReadQueue> open_read_threads(int depth) {
  return std::make_unique<ReadThreads>(depth);
}

}  // namespace hearth
