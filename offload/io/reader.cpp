#include "offload/io/reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "base/check.h"

namespace hearth {
namespace {

constexpr int32_t kTriesMax = 100;  // in a row without a new byte: then the error is no passing one

constexpr int64_t round_down(int64_t value) { return value & -Reader::kAlignment; }
constexpr int64_t round_up(int64_t value) { return round_down(value + Reader::kAlignment - 1); }

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// By file, the place of its device among the devices.
std::vector<int32_t> number_disks(const std::vector<SourceFile>& files) {
  std::vector<uint64_t> devices;
  std::vector<int32_t> numbers;
  for (const SourceFile& file : files) {
    auto place = std::ranges::find(devices, file.device());
    if (place == devices.end()) place = devices.insert(place, file.device());
    numbers.push_back(static_cast<int32_t>(place - devices.begin()));
  }
  return numbers;
}

int32_t count_disks(const std::vector<int32_t>& numbers) {
  return numbers.empty() ? 0 : *std::ranges::max_element(numbers) + 1;
}

}  // namespace

int64_t Reader::padded_bytes(int64_t offset, int64_t bytes) {
  return round_up(offset + bytes) - round_down(offset);
}

Reader::Reader(std::unique_ptr<ReadQueue> queue, std::vector<SourceFile> files,
               const ReaderOptions& options)
    : depth_(options.depth),
      piece_bytes_(options.piece_bytes),
      files_(std::move(files)),
      disk_of_file_(number_disks(files_)),
      disks_(static_cast<size_t>(count_disks(disk_of_file_))),
      requests_(static_cast<size_t>(options.requests_max)),
      pieces_(disks_.size() * static_cast<size_t>(options.depth)),
      queue_(std::move(queue)) {
  HEARTH_CHECK(options.requests_max > 0 && depth_ > 0);
  HEARTH_CHECK(piece_bytes_ > 0 && piece_bytes_ % kAlignment == 0 && piece_bytes_ <= 1 << 30);
  for (int32_t i = 0; i < std::ssize(requests_); ++i) push(free_, i);
  for (int32_t i = 0; i < std::ssize(pieces_); ++i) free_pieces_.push_back(i);
}

Reader::~Reader() = default;

void Reader::push(Chain& chain, int32_t request) noexcept {
  requests_[static_cast<size_t>(request)].follower = -1;
  if (chain.first < 0) {
    chain.first = request;
  } else {
    requests_[static_cast<size_t>(chain.last)].follower = request;
  }
  chain.last = request;
}

int32_t Reader::pop(Chain& chain) noexcept {
  const int32_t request = chain.first;
  chain.first = requests_[static_cast<size_t>(request)].follower;
  return request;
}

Reader::Disk& Reader::disk_of(const Request& request) noexcept {
  const int32_t disk = disk_of_file_[static_cast<size_t>(request.what.file)];
  return disks_[static_cast<size_t>(disk)];
}

void Reader::start(const ReadRequest& what) noexcept {
  HEARTH_CHECK(free_.first >= 0);
  HEARTH_CHECK(what.file >= 0 && what.file < std::ssize(files_));
  HEARTH_CHECK(what.offset >= 0 && what.bytes > 0);
  HEARTH_CHECK(reinterpret_cast<uintptr_t>(what.to) % kAlignment == 0);
  const int32_t slot = pop(free_);
  Request& request = requests_[static_cast<size_t>(slot)];
  request = {.what = what,
             .next = round_down(what.offset),
             .end = round_up(what.offset + what.bytes),
             .pieces = 0,
             .error = 0,
             .follower = -1};
  push(disk_of(request).waiting, slot);
  ++in_flight_;
  ++stats_.requests;
}

bool Reader::poll(ReadResult& result) noexcept {
  advance();
  return answer(result);
}

ReadResult Reader::wait() noexcept {
  HEARTH_CHECK(in_flight_ > 0);
  ReadResult result{};
  if (poll(result)) return result;
  const auto begin = Clock::now();
  do {
    settle(queue_->wait());
  } while (!poll(result));
  stats_.wait_seconds += seconds_since(begin);
  return result;
}

bool Reader::answer(ReadResult& result) noexcept {
  if (done_.first < 0) return false;
  const int32_t slot = pop(done_);
  const Request& request = requests_[static_cast<size_t>(slot)];
  result = {request.what.tag, request.error};
  push(free_, slot);
  --in_flight_;
  return true;
}

// Takes what is done and hands the kernel what there is room for, with one call.
void Reader::advance() noexcept {
  ReadDone done{};
  while (queue_->poll(done)) settle(done);
  fill();
  queue_->submit();
}

void Reader::fill() noexcept {
  for (Disk& disk : disks_) {
    while (disk.pieces < depth_ && disk.waiting.first >= 0) start_piece(disk);
  }
}

// The next piece of the request that is first in line.
void Reader::start_piece(Disk& disk) noexcept {
  if (free_pieces_.size() == pieces_.size()) busy_since_ = Clock::now();
  const int32_t number = free_pieces_.back();
  free_pieces_.pop_back();
  const int32_t slot = disk.waiting.first;
  Request& request = requests_[static_cast<size_t>(slot)];
  const int64_t bytes = std::min(piece_bytes_, request.end - request.next);
  pieces_[static_cast<size_t>(number)] = {
      .request = slot,
      .bytes = static_cast<int32_t>(bytes),
      .offset = request.next,
      .to = request.what.to + (request.next - round_down(request.what.offset)),
      .reached = request.next,
      .tries = 0,
      .direct = false};
  request.next += bytes;
  ++request.pieces;
  ++disk.pieces;
  if (request.next == request.end) pop(disk.waiting);
  ask_for(number);
}

void Reader::ask_for(int32_t number) noexcept {
  Piece& piece = pieces_[static_cast<size_t>(number)];
  const SourceFile& file =
      files_[static_cast<size_t>(requests_[static_cast<size_t>(piece.request)].what.file)];
  piece.direct = file.is_direct();
  queue_->start({.file = file.descriptor(),
                 .offset = piece.offset,
                 .bytes = piece.bytes,
                 .to = piece.to,
                 .tag = static_cast<uint64_t>(number)});
}

void Reader::settle(const ReadDone& done) noexcept {
  const auto number = static_cast<int32_t>(done.tag);
  Piece& piece = pieces_[done.tag];
  Request& request = requests_[static_cast<size_t>(piece.request)];
  if (done.result > 0) stats_.bytes += done.result;
  int32_t error = done.result < 0 ? -done.result : 0;
  const Outcome outcome = judge(piece, done.result, error);
  if (outcome == Outcome::kAgain && request.error == 0) {
    ask_for(number);
    return;
  }
  if (outcome == Outcome::kFailed) fail(request, error);
  end_piece(number);
}

// Of what came for a piece; `error` is what it fails with.
Reader::Outcome Reader::judge(Piece& piece, int32_t result, int32_t& error) noexcept {
  if (result < 0) return judge_error(piece, error);
  const ReadRequest& what = requests_[static_cast<size_t>(piece.request)].what;
  const int64_t reached = piece.offset + result;
  // The file's last block may end before the block does.
  if (result == piece.bytes || reached >= what.offset + what.bytes) return Outcome::kDone;
  ++stats_.short_reads;
  error = ENODATA;
  if (result == 0) return Outcome::kFailed;
  if (reached <= piece.reached) return again(piece);
  piece.reached = reached;
  piece.tries = 0;
  const int64_t step = round_down(result);  // blocks are asked for whole
  piece.offset += step;
  piece.to += step;
  piece.bytes -= static_cast<int32_t>(step);
  return Outcome::kAgain;
}

Reader::Outcome Reader::judge_error(Piece& piece, int32_t& error) noexcept {
  if (error == EINVAL && piece.direct) {  // the file system refuses O_DIRECT here
    files_[static_cast<size_t>(requests_[static_cast<size_t>(piece.request)].what.file)]
        .leave_direct();
    return again(piece);
  }
  const bool passes = error == EINTR || error == EAGAIN || error == EBUSY;
  return passes ? again(piece) : Outcome::kFailed;
}

Reader::Outcome Reader::again(Piece& piece) noexcept {
  ++stats_.retries;
  return ++piece.tries > kTriesMax ? Outcome::kFailed : Outcome::kAgain;
}

// What was not yet asked for never is. A request with pieces under way and others to come is the
// first in line.
void Reader::fail(Request& request, int32_t error) noexcept {
  if (request.error == 0) request.error = error;
  if (request.next == request.end) return;
  request.next = request.end;
  pop(disk_of(request).waiting);
}

void Reader::end_piece(int32_t number) noexcept {
  const int32_t slot = pieces_[static_cast<size_t>(number)].request;
  Request& request = requests_[static_cast<size_t>(slot)];
  --disk_of(request).pieces;
  free_pieces_.push_back(number);
  if (free_pieces_.size() == pieces_.size()) stats_.busy_seconds += seconds_since(busy_since_);
  if (--request.pieces == 0 && request.next == request.end) push(done_, slot);
}

ReaderStats Reader::stats() const {
  ReaderStats stats = stats_;
  if (free_pieces_.size() < pieces_.size()) stats.busy_seconds += seconds_since(busy_since_);
  return stats;
}

void Reader::clear_stats() {
  stats_ = {};
  busy_since_ = Clock::now();
}

OpenReader open_reader(const std::vector<ReaderFile>& files, const ReaderOptions& options) {
  OpenReader open;
  std::vector<SourceFile> sources;
  std::vector<int> descriptors;
  for (const ReaderFile& file : files) {
    sources.emplace_back(file.path, options.direct, open.notes);
    descriptors.push_back(sources.back().descriptor());
  }
  const int32_t disks = count_disks(number_disks(sources));
  int refused = 0;
  auto queue = open_read_queue(options.depth * std::max(disks, 1), options.use_uring, refused);
  if (refused != 0) {
    open.notes.push_back(fmt::format("the kernel refuses io_uring ({}): threads read the disk",
                                     std::generic_category().message(refused)));
  }
  if (const int error = queue->prepare(descriptors, options.memory); error != 0) {
    open.notes.push_back(fmt::format(
        "the kernel doesn't pin the memory that reads go to ({}): they are a little slower",
        std::generic_category().message(error)));
  }
  open.reader = std::make_unique<Reader>(std::move(queue), std::move(sources), options);
  return open;
}

}  // namespace hearth
