// Runs a grid block by block. A thread of a block is a fiber that runs until it waits; what it
// waits for is noted, it hands over to one that can run, and whoever arrives last lets the others
// go. When nobody can go and somebody still waits, the kernel is wrong.
#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "gpu_kernels/emulation/fibers.h"
#include "gpu_kernels/emulation/simt_host.h"

namespace hearth::emulated {

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace {

constexpr uint32_t kLanes = 32;
constexpr uint32_t kWarpsMax = 32;
constexpr unsigned char kGarbage = 0xff;  // NaN as a float

struct AsyncCopy {
  void* to;
  const void* from;
};

// A line of the cache: most of the time is spent in changes of threads.
struct alignas(64) Thread {
  dim3 index;
  Collective kind;
  uint32_t mask, source;
  uint64_t value, result;
  Place place;
};

struct ThreadCopies {
  std::vector<AsyncCopy> copies;  // not yet done
  std::vector<size_t> commits;    // how many of them each commit holds
  size_t uncommitted = 0;
};

struct Warp {
  uint32_t live;        // lanes that exist and have not returned
  uint32_t ready;       // can run
  uint32_t collective;  // wait in one of the warp
  uint32_t barrier;     // wait for the block
};

class BlockRunner {
 public:
  BlockRunner() = default;
  ~BlockRunner();
  BlockRunner(const BlockRunner&) = delete;
  BlockRunner& operator=(const BlockRunner&) = delete;

  void run(const LaunchShape& shape, const std::function<void()>& thread);

  uint64_t collective(Collective kind, uint32_t mask, uint32_t source, uint64_t value, Place place);
  void barrier(const Place& place);
  void* memory() { return shared_.get(); }
  ThreadCopies& copies() { return copies_[current_]; }
  uint32_t lane() const { return current_ % kLanes; }
  uint32_t warp() const { return current_ / kLanes; }
  void set_order(uint64_t seed) { order_ = seed; }

 private:
  void prepare(const LaunchShape& shape);
  void run_block();
  void run_threads();
  Thread& current() { return threads_[current_]; }
  void finish_thread();
  uint32_t pick(uint32_t set);
  void pause();
  Fiber& pick_next();
  void finish_collective(Warp& warp, const Thread& own);
  void finish_barrier();
  void explain_standstill();

  const std::function<void()>* work_ = nullptr;  // of a thread of the grid that runs
  Fiber outside_;
  std::vector<std::unique_ptr<Fiber>> fibers_;  // of the threads of blocks, one after the other
  std::vector<Thread> threads_;
  std::vector<ThreadCopies> copies_;
  Warp warps_[kWarpsMax];
  uint32_t thread_count_ = 0, warp_count_ = 0, live_ = 0, at_barrier_ = 0, ready_warps_ = 0;
  uint32_t current_ = 0;
  uint64_t order_ = 0;
  // As long as the kernel asked for, so that AddressSanitizer sees what goes past it.
  std::unique_ptr<uint4[]> shared_;
  size_t shared_bytes_ = 0;
};

std::mutex one_grid;
BlockRunner& runner() {
  static BlockRunner instance;
  return instance;
}

bool same_place(const Place& a, const Place& b) {
  return a.line() == b.line() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

// Their fibers wait for the next block.
BlockRunner::~BlockRunner() {
  work_ = nullptr;
  for (const auto& fiber : fibers_) outside_.switch_to(*fiber);
}

void BlockRunner::prepare(const LaunchShape& shape) {
  const dim3 block = shape.block;
  thread_count_ = block.x * block.y * block.z;
  HEARTH_CHECK(thread_count_ >= 1 && thread_count_ <= kWarpsMax * kLanes);
  HEARTH_CHECK(shape.grid.x >= 1 && shape.grid.y >= 1 && shape.grid.z >= 1);
  HEARTH_CHECK(shape.grid.y <= 65535 && shape.grid.z <= 65535);
  HEARTH_CHECK(static_cast<int64_t>(shape.shared_bytes) <= device_limits().shared_bytes);
  warp_count_ = (thread_count_ + kLanes - 1) / kLanes;
  while (fibers_.size() < thread_count_) {
    const auto work = [this] { run_threads(); };
    fibers_.push_back(std::make_unique<Fiber>(work, outside_, fibers_.size()));
  }
  if (threads_.size() < thread_count_) {
    threads_.resize(thread_count_);
    copies_.resize(thread_count_);
  }
  for (uint32_t i = 0; i < thread_count_; ++i) {
    threads_[i].index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
  }
  shared_bytes_ = (shape.shared_bytes + 15) / 16 * 16;
  shared_ = std::make_unique<uint4[]>(shared_bytes_ / 16);
  gridDim = shape.grid;
  blockDim = block;
}

void BlockRunner::run(const LaunchShape& shape, const std::function<void()>& thread) {
  prepare(shape);
  const dim3 grid = shape.grid;
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  const bool backwards = order_ % 2 == 1;
  work_ = &thread;
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t block = backwards ? blocks - 1 - i : i;
    blockIdx = {static_cast<uint32_t>(block % grid.x),
                static_cast<uint32_t>(block / grid.x % grid.y),
                static_cast<uint32_t>(block / grid.x / grid.y)};
    run_block();
  }
}

// One of a set of bits: by chance, or, as an order of 0 stays 0, the lowest.
uint32_t BlockRunner::pick(uint32_t set) {
  order_ ^= order_ << 13;
  order_ ^= order_ >> 7;
  order_ ^= order_ << 17;
  const int first = static_cast<int>(order_ >> 32 & 31);
  return (first + std::countr_zero(std::rotr(set, first))) % kLanes;
}

void BlockRunner::run_block() {
  if (shared_bytes_ > 0) std::memset(shared_.get(), kGarbage, shared_bytes_);
  live_ = thread_count_;
  at_barrier_ = 0;
  ready_warps_ = warp_count_ == kWarpsMax ? ~0u : (1u << warp_count_) - 1;
  for (uint32_t w = 0; w < warp_count_; ++w) {
    const uint32_t lanes = std::min(thread_count_ - w * kLanes, kLanes);
    const uint32_t all = lanes == kLanes ? ~0u : (1u << lanes) - 1;
    warps_[w] = {.live = all, .ready = all, .collective = 0, .barrier = 0};
  }
  outside_.switch_to(pick_next());
}

// What a fiber does: its thread of one block after the other.
void BlockRunner::run_threads() {
  while (work_ != nullptr) {
    (*work_)();
    finish_thread();
    pause();
  }
}

void BlockRunner::finish_thread() {
  warps_[current_ / kLanes].live &= ~(1u << lane());
  copies().copies.clear();
  copies().commits.clear();
  copies().uncommitted = 0;
  if (--live_ > 0 && at_barrier_ == live_) finish_barrier();
}

// The current thread doesn't go on for now.
void BlockRunner::pause() {
  Fiber& self = *fibers_[current_];
  Warp& warp = warps_[current_ / kLanes];
  warp.ready &= ~(1u << lane());
  if (warp.ready == 0) ready_warps_ &= ~(1u << (current_ / kLanes));
  self.switch_to(pick_next());
}

// Who runs next, as the current thread from now on; when all have returned, whoever began the
// block.
Fiber& BlockRunner::pick_next() {
  if (live_ == 0) return outside_;
  if (ready_warps_ == 0) explain_standstill();
  const uint32_t warp = pick(ready_warps_);
  current_ = warp * kLanes + pick(warps_[warp].ready);
  threadIdx = current().index;
  return *fibers_[current_];
}

uint64_t BlockRunner::collective(Collective kind, uint32_t mask, uint32_t source, uint64_t value,
                                 Place place) {
  Warp& warp = warps_[current_ / kLanes];
  const uint32_t bit = 1u << lane();
  if ((mask & bit) == 0) misuse("a lane is in the mask it gives", place);
  if ((mask & ~warp.live) != 0) misuse("all lanes of the mask exist and have not returned", place);
  if (kind == Collective::kShuffle && (mask >> source & 1) == 0) {
    misuse("the lane that a shuffle reads is in its mask", place);
  }
  // Field by field: what is copied whole right after waits for its parts.
  Thread& own = current();
  own.kind = kind;
  own.mask = mask;
  own.source = source;
  own.value = value;
  own.place = place;
  warp.collective |= bit;
  if ((warp.collective & mask) == mask) {
    finish_collective(warp, own);
  } else {
    pause();
  }
  return own.result;
}

void BlockRunner::finish_collective(Warp& warp, const Thread& own) {
  Thread* lanes = &threads_[current_ / kLanes * kLanes];
  uint64_t ballot = 0;
  for (uint32_t left = own.mask; left != 0; left &= left - 1) {
    const Thread& other = lanes[std::countr_zero(left)];
    if (other.mask != own.mask || other.kind != own.kind || !same_place(other.place, own.place)) {
      misuse("all lanes of the mask meet in the same call", own.place);
    }
    if (own.kind == Collective::kBallot) ballot |= other.value << std::countr_zero(left);
  }
  for (uint32_t left = own.mask; left != 0; left &= left - 1) {
    Thread& other = lanes[std::countr_zero(left)];
    other.result = own.kind == Collective::kShuffle ? lanes[other.source].value : ballot;
  }
  warp.collective &= ~own.mask;
  warp.ready |= own.mask;
}

void BlockRunner::barrier(const Place& place) {
  current().place = place;
  warps_[current_ / kLanes].barrier |= 1u << lane();
  if (++at_barrier_ == live_) {
    finish_barrier();
  } else {
    pause();
  }
}

void BlockRunner::finish_barrier() {
  const Place* first = nullptr;
  for (uint32_t w = 0; w < warp_count_; ++w) {
    Warp& warp = warps_[w];
    for (uint32_t left = warp.barrier; left != 0; left &= left - 1) {
      const Place& place = threads_[w * kLanes + std::countr_zero(left)].place;
      if (first == nullptr) first = &place;
      if (!same_place(*first, place))
        misuse("all live threads of the block meet in the same __syncthreads", place);
    }
    warp.ready |= warp.barrier;
    if (warp.barrier != 0) ready_warps_ |= 1u << w;
    warp.barrier = 0;
  }
  at_barrier_ = 0;
}

void BlockRunner::explain_standstill() {
  for (uint32_t i = 0; i < thread_count_; ++i) {
    if ((warps_[i / kLanes].collective >> (i % kLanes) & 1) != 0) {
      misuse("all lanes of the mask reach this call", threads_[i].place);
    }
  }
  for (uint32_t i = 0; i < thread_count_; ++i) {
    if ((warps_[i / kLanes].barrier >> (i % kLanes) & 1) != 0) {
      misuse("all live threads of the block reach this __syncthreads", threads_[i].place);
    }
  }
  HEARTH_CHECK(live_ == 0);
}

}  // namespace

void misuse(const char* rule, const Place& place) {
  check_failed(rule, place.file_name(), static_cast<int>(place.line()));
}

void run_grid(const LaunchShape& shape, const std::function<void()>& thread) {
  const std::lock_guard lock(one_grid);
  runner().run(shape, thread);
}

uint64_t warp_collective(Collective kind, uint32_t mask, uint32_t source, uint64_t value,
                         Place place) {
  return runner().collective(kind, mask, source, value, place);
}
void block_barrier(const Place& place) { runner().barrier(place); }
void* block_memory() { return runner().memory(); }
uint32_t own_lane() { return runner().lane(); }
uint32_t own_warp() { return runner().warp(); }

void set_thread_order(uint64_t seed) {
  const std::lock_guard lock(one_grid);
  runner().set_order(seed);
}

void copy16_async(void* shared, const void* global, const Place& place) {
  if (reinterpret_cast<uintptr_t>(shared) % 16 != 0 ||
      reinterpret_cast<uintptr_t>(global) % 16 != 0) {
    misuse("both sides of a copy of 16 bytes are aligned to as many", place);
  }
  ThreadCopies& thread = runner().copies();
  thread.copies.push_back({shared, global});
  ++thread.uncommitted;
}

void commit_copies() {
  ThreadCopies& thread = runner().copies();
  thread.commits.push_back(thread.uncommitted);
  thread.uncommitted = 0;
}

void wait_for_copies(int left) {
  ThreadCopies& thread = runner().copies();
  size_t done = 0;
  while (thread.commits.size() > static_cast<size_t>(left)) {
    const size_t end = done + thread.commits.front();
    for (; done < end; ++done) std::memcpy(thread.copies[done].to, thread.copies[done].from, 16);
    thread.commits.erase(thread.commits.begin());
  }
  thread.copies.erase(thread.copies.begin(),
                      thread.copies.begin() + static_cast<std::ptrdiff_t>(done));
}

}  // namespace hearth::emulated
