// A read queue for tests and simulation: reads are done by the owner's thread itself, later and in
// another order, and fail as they are told to. The same seed and calls give the same run.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "offload/io/read_queue.h"

namespace hearth {

struct FakeReadFaults {
  uint64_t seed = 1;
  int32_t latency_polls_max = 4;  // a read is done after 0 to so many polls
  // How likely each is, for every read:
  double error = 0;    // EIO, with garbage in its memory
  double shorter = 0;  // with garbage behind what came
  double busy = 0;     // EAGAIN
  double stall = 0;
  int32_t stall_polls = 1000;
  // How likely a submit is to hand over nothing, as where the kernel's queue is full.
  double full = 0;

  struct Scripted {
    int64_t read;    // counted from 0, as they are started
    int32_t result;  // what it ends with instead: -errno, or fewer bytes than asked for
  };
  std::vector<Scripted> script;
};

// Does a read: bytes read, or -errno. Must be noexcept in effect.
using ReadSource = std::function<int32_t(const Read&)>;
// From the real file under the descriptor.
int32_t read_from_file(const Read& read);
// From memory; Read::file counts the contents.
ReadSource read_from_memory(std::vector<std::vector<unsigned char>> contents);

class FakeReadQueue final : public ReadQueue {
 public:
  FakeReadQueue(int depth, FakeReadFaults faults, ReadSource source = read_from_file);
  ~FakeReadQueue() override;

  void start(const Read& read) noexcept override;
  void submit() noexcept override;
  bool poll(ReadDone& done) noexcept override;
  // Jumps to the poll at which the next one is done: it never hangs.
  ReadDone wait() noexcept override;

 private:
  struct Waiting {
    Read read;
    int64_t due;  // the poll at which it is done; none before it is submitted
    bool submitted;
    int32_t scripted;  // what it ends with; kAsDrawn: by chance
  };

  double draw() noexcept;
  int64_t below(int64_t bound) noexcept;
  void hand_over() noexcept;
  ReadDone finish(size_t place) noexcept;
  int32_t result_of(const Waiting& waiting) noexcept;
  int32_t cut_short(const Read& read, int32_t bytes) noexcept;

  const int depth_;
  const FakeReadFaults faults_;
  const ReadSource source_;
  uint64_t state_;
  int64_t now_ = 0;  // polls
  int64_t started_ = 0;
  std::vector<Waiting> waiting_;
};

}  // namespace hearth
