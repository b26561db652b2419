// Reads from model files past the page cache, into memory of the caller's: requests of any place
// and length, answered in any order.
//
// The disk is asked for whole aligned blocks, so a request's room holds a little more than what was
// asked for. Requests are cut into pieces, which go out in the order of the requests; each disk has
// pieces of its own under way, so that all disks work at once. What comes back short is asked for
// again; what fails ends its request alone.
//
// One thread owns a reader. start, poll and wait allocate nothing. Completions are seen when the
// owner calls poll or wait, and only then new pieces go out: who computes for long should poll in
// between.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "offload/io/read_queue.h"
#include "offload/io/source_file.h"

namespace hearth {

struct ReadRequest {
  int32_t file;    // index into the files the reader was opened with
  int64_t offset;  // bytes; any
  int64_t bytes;
  // Where the file's bytes from `offset` rounded down go: aligned to Reader::kAlignment, with room
  // for padded_bytes(offset, bytes). Byte `offset` lands at to + offset % kAlignment. What the room
  // holds is undefined until the request is answered without an error.
  unsigned char* to;
  uint64_t tag;  // several requests may share one
};

struct ReadResult {
  uint64_t tag;
  int32_t error;  // 0: all bytes are there; else an errno, ENODATA where the file ends too early
};

struct ReaderStats {
  int64_t bytes = 0;  // that came, with the rest of blocks and what was read again
  int64_t requests = 0;
  double busy_seconds = 0;  // with a piece under way, until the owner saw that none was left
  double wait_seconds = 0;  // the owner was blocked in wait()
  int64_t short_reads = 0;
  int64_t retries = 0;  // pieces asked for again where no new byte had come
};

struct ReaderFile {
  std::string path;
};

struct ReaderOptions {
  int32_t requests_max = 256;  // under way at once
  // Pieces this large and this many are near the best for one expert at a time as for many; more
  // bytes under way only make the next request wait.
  int32_t depth = 16;             // pieces under way at once, on each disk
  int64_t piece_bytes = 2 << 20;  // at most, a multiple of Reader::kAlignment
  // What all reads go to. It is pinned where the kernel allows that, which makes reads some 8 %
  // faster and takes the memory at once. Reads to elsewhere work too.
  std::vector<std::span<unsigned char>> memory;
  bool use_uring = true;
  bool direct = true;
};

class Reader {
 public:
  static constexpr int64_t kAlignment = 4096;
  // What a request's room must hold.
  static int64_t padded_bytes(int64_t offset, int64_t bytes);

  // The queue takes options.depth reads for each device that a file lies on.
  Reader(std::unique_ptr<ReadQueue> queue, std::vector<SourceFile> files,
         const ReaderOptions& options);
  // Waits for the pieces under way; nothing is written into any room afterwards.
  ~Reader();
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  // Queues it; the kernel gets it with the next poll or wait, so that many go at once. Fewer than
  // requests_max may be in flight.
  void start(const ReadRequest& request) noexcept;
  // Keeps the disks busy; the next request that is done, if any.
  bool poll(ReadResult& result) noexcept;
  // The next request that is done; one must be in flight.
  ReadResult wait() noexcept;
  // Requests started and not yet returned.
  int64_t in_flight() const { return in_flight_; }

  ReaderStats stats() const;
  void clear_stats();

 private:
  using Clock = std::chrono::steady_clock;

  struct Request {
    ReadRequest what;
    int64_t next;  // where the next piece begins
    int64_t end;
    int32_t pieces;  // under way
    int32_t error;
    int32_t follower;  // in the chain it is in
  };
  // Requests in an order. Each is in one chain at most.
  struct Chain {
    int32_t first = -1;
    int32_t last = -1;
  };
  struct Piece {
    int32_t request;
    int32_t bytes;  // still asked for
    int64_t offset;
    unsigned char* to;
    int64_t reached;  // the file's bytes before this have come
    int32_t tries;    // in a row that brought nothing
    bool direct;      // when it was last asked for
  };
  struct Disk {
    Chain waiting;  // requests with pieces not yet asked for
    int32_t pieces = 0;
  };
  enum class Outcome { kDone, kAgain, kFailed };

  void push(Chain& chain, int32_t request) noexcept;
  int32_t pop(Chain& chain) noexcept;
  Disk& disk_of(const Request& request) noexcept;

  void advance() noexcept;
  void fill() noexcept;
  void start_piece(Disk& disk) noexcept;
  void ask_for(int32_t piece) noexcept;
  void settle(const ReadDone& done) noexcept;
  Outcome judge(Piece& piece, int32_t result, int32_t& error) noexcept;
  Outcome judge_error(Piece& piece, int32_t& error) noexcept;
  Outcome again(Piece& piece) noexcept;
  void fail(Request& request, int32_t error) noexcept;
  void end_piece(int32_t piece) noexcept;
  bool answer(ReadResult& result) noexcept;

  const int32_t depth_;
  const int64_t piece_bytes_;
  std::vector<SourceFile> files_;
  std::vector<int32_t> disk_of_file_;
  std::vector<Disk> disks_;
  std::vector<Request> requests_;
  Chain free_;
  Chain done_;
  std::vector<Piece> pieces_;
  std::vector<int32_t> free_pieces_;
  int64_t in_flight_ = 0;
  ReaderStats stats_;
  Clock::time_point busy_since_;  // where a piece is under way
  // Last, so that it goes first: the kernel may still read from the files.
  std::unique_ptr<ReadQueue> queue_;
};

struct OpenReader {
  std::unique_ptr<Reader> reader;
  std::vector<std::string>
      notes;  // what a person should know: what was refused, what is done instead
};

// Each file gets a descriptor of its own. Throws Error where one can't be opened.
OpenReader open_reader(const std::vector<ReaderFile>& files, const ReaderOptions& options);

}  // namespace hearth
