#include "offload/io/fake_read_queue.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "base/check.h"

namespace hearth {
namespace {

constexpr int32_t kAsDrawn = std::numeric_limits<int32_t>::min();
constexpr unsigned char kGarbage = 0xa5;

// What a failed read leaves in the memory behind what it brought.
void scribble(const Read& read, int32_t came) {
  if (came < read.bytes)
    std::memset(read.to + came, kGarbage, static_cast<size_t>(read.bytes - came));
}

}  // namespace

int32_t read_from_file(const Read& read) {
  for (;;) {
    const ssize_t got = ::pread(read.file, read.to, static_cast<size_t>(read.bytes), read.offset);
    if (got >= 0) return static_cast<int32_t>(got);
    if (errno != EINTR) return -errno;
  }
}

ReadSource read_from_memory(std::vector<std::vector<unsigned char>> contents) {
  return [contents = std::move(contents)](const Read& read) -> int32_t {
    if (read.file < 0 || read.file >= std::ssize(contents)) return -EBADF;
    const auto& content = contents[static_cast<size_t>(read.file)];
    const int64_t left = std::max<int64_t>(std::ssize(content) - read.offset, 0);
    const int64_t bytes = std::min<int64_t>(left, read.bytes);
    if (bytes > 0) std::memcpy(read.to, content.data() + read.offset, static_cast<size_t>(bytes));
    return static_cast<int32_t>(bytes);
  };
}

FakeReadQueue::FakeReadQueue(int depth, FakeReadFaults faults, ReadSource source)
    : depth_(depth), faults_(std::move(faults)), source_(std::move(source)), state_(faults_.seed) {
  waiting_.reserve(static_cast<size_t>(depth));
}

// Reads in flight never happen: nothing is written afterwards either.
FakeReadQueue::~FakeReadQueue() = default;

void FakeReadQueue::start(const Read& read) noexcept {
  HEARTH_CHECK(std::ssize(waiting_) < depth_);
  int32_t scripted = kAsDrawn;
  for (const FakeReadFaults::Scripted& fault : faults_.script) {
    if (fault.read == started_) scripted = fault.result;
  }
  waiting_.push_back({read, 0, false, scripted});
  ++started_;
}

void FakeReadQueue::submit() noexcept {
  if (draw() >= faults_.full) hand_over();
}

void FakeReadQueue::hand_over() noexcept {
  for (Waiting& waiting : waiting_) {
    if (waiting.submitted) continue;
    waiting.submitted = true;
    const bool stalls = draw() < faults_.stall;
    waiting.due = now_ + (stalls ? faults_.stall_polls : below(faults_.latency_polls_max + 1));
  }
}

// Any of those that are due.
bool FakeReadQueue::poll(ReadDone& done) noexcept {
  ++now_;
  if (waiting_.empty()) return false;
  const size_t first = static_cast<size_t>(below(std::ssize(waiting_)));
  for (size_t i = 0; i < waiting_.size(); ++i) {
    const size_t place = (first + i) % waiting_.size();
    if (!waiting_[place].submitted || waiting_[place].due > now_) continue;
    done = finish(place);
    return true;
  }
  return false;
}

ReadDone FakeReadQueue::wait() noexcept {
  HEARTH_CHECK(!waiting_.empty());
  hand_over();
  const auto next = std::ranges::min_element(waiting_, {}, &Waiting::due);
  now_ = std::max(now_, next->due);
  return finish(static_cast<size_t>(next - waiting_.begin()));
}

ReadDone FakeReadQueue::finish(size_t place) noexcept {
  const Waiting waiting = waiting_[place];
  waiting_[place] = waiting_.back();
  waiting_.pop_back();
  return {waiting.read.tag, result_of(waiting)};
}

int32_t FakeReadQueue::result_of(const Waiting& waiting) noexcept {
  const Read& read = waiting.read;
  const double chance = draw();
  if (waiting.scripted != kAsDrawn) {
    return waiting.scripted > 0 ? cut_short(read, waiting.scripted) : waiting.scripted;
  }
  if (chance < faults_.error) {
    scribble(read, 0);
    return -EIO;
  }
  if (chance < faults_.error + faults_.busy) return -EAGAIN;
  if (chance < faults_.error + faults_.busy + faults_.shorter) {
    return cut_short(read, static_cast<int32_t>(1 + below(read.bytes)));
  }
  return source_(read);
}

// The source is asked for all, since a real one may refuse odd lengths.
int32_t FakeReadQueue::cut_short(const Read& read, int32_t bytes) noexcept {
  const int32_t result = std::min(source_(read), bytes);
  if (result >= 0) scribble(read, result);
  return result;
}

// splitmix64: the same everywhere.
double FakeReadQueue::draw() noexcept {
  uint64_t x = state_ += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return static_cast<double>((x ^ (x >> 31)) >> 11) * 0x1p-53;
}

int64_t FakeReadQueue::below(int64_t bound) noexcept {
  return static_cast<int64_t>(draw() * static_cast<double>(bound));
}

}  // namespace hearth
