// Workers make one buffer of rows while another one is written, so that the disk never waits.
#include "model/synth.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <future>
#include <span>

#include "base/buffer.h"
#include "base/check.h"
#include "base/error.h"
#include "base/workers.h"
#include "format/gguf_writer.h"
#include "model/synth_layout.h"
#include "model/synth_rows.h"

namespace hearth {
namespace {

constexpr int64_t kBufferBytes = int64_t{32} << 20;
constexpr int64_t kPieceBytes = int64_t{128} << 10;  // a worker's, about what stays in its cache
constexpr int64_t kReserveBytes = int64_t{64}
                                  << 20;  // for the header, and not to fill a disk to the brim

using Progress = std::function<void(int64_t done, int64_t total)>;

double gigabytes(int64_t bytes) { return static_cast<double>(bytes) / 1e9; }

// Space that a file of this name gives back when it is overwritten.
int64_t bytes_on_disk(const std::filesystem::path& path) {
  struct stat status;
  if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return 0;
  return int64_t{status.st_blocks} * 512;
}

void check_space(const std::filesystem::path& out, int64_t bytes) {
  const std::filesystem::path folder = out.has_parent_path() ? out.parent_path() : ".";
  struct statvfs disk;
  if (::statvfs(folder.c_str(), &disk) != 0) return;  // to be told by the writer
  const int64_t have = static_cast<int64_t>(disk.f_bavail * disk.f_frsize) + bytes_on_disk(out);
  const int64_t need = bytes + kReserveBytes;
  if (have >= need) return;
  throw Error(fmt::format("the disk has {:.2f} GB free, the file needs {:.2f} GB", gigabytes(have),
                          gigabytes(need)),
              out.string(),
              "Free space, name another disk, or ask for fewer layers or experts, or holes");
}

class Stream {
 public:
  Stream(GgufWriter& writer, const Workers& workers, const Progress& on_progress, int64_t total)
      : writer_(writer), workers_(workers), on_progress_(on_progress), total_(total) {}

  void write(const SynthTensor& tensor, const SynthRows& rows) {
    const int64_t row_bytes = tensor.row_bytes();
    const int64_t rows_at_once = kBufferBytes / row_bytes;
    HEARTH_CHECK(rows_at_once > 0);
    for (int64_t row = 0; row < tensor.rows(); row += rows_at_once) {
      const int64_t count = std::min(rows_at_once, tensor.rows() - row);
      turn_ = 1 - turn_;
      unsigned char* buffer = buffers_[turn_].data();
      workers_.for_range(count, std::max<int64_t>(1, kPieceBytes / row_bytes),
                         [&](int64_t begin, int64_t end, int) {
                           rows.fill(row + begin, row + end, buffer + begin * row_bytes);
                         });
      wait();
      const std::span<const unsigned char> bytes(buffer, static_cast<size_t>(count * row_bytes));
      writing_ = std::async(std::launch::async, [this, bytes] { writer_.write(bytes); });
      done_ += count * row_bytes;
      if (on_progress_) on_progress_(done_, total_);
    }
  }

  void skip() {
    wait();
    writer_.skip();
  }

  void finish() {
    wait();
    writer_.finish();
  }

 private:
  // Throws what went wrong with the write under way.
  void wait() {
    if (writing_.valid()) writing_.get();
  }

  GgufWriter& writer_;
  const Workers& workers_;
  const Progress& on_progress_;
  int64_t total_;
  int64_t done_ = 0;
  int turn_ = 0;
  Buffer buffers_[2] = {Buffer(kBufferBytes), Buffer(kBufferBytes)};
  std::future<void> writing_;  // last: its end is awaited before the buffers go
};

}  // namespace

int32_t synth_token_range(int64_t token, int32_t vocab) {
  return static_cast<int32_t>(token * kSynthTokenRanges / vocab);
}

void write_synth(const SynthOptions& options, const Progress& on_progress) {
  const SynthLayout layout = synth_layout(options);
  check_space(options.out, layout.written_bytes);

  GgufWriter writer(options.out);
  for (const auto& [key, value] : layout.keys) writer.add(key, value);
  for (const SynthTensor& tensor : layout.tensors) {
    writer.add_tensor(tensor.name, tensor.type, tensor.dims);
  }
  writer.begin_data();

  const Workers workers(std::max(options.threads, 1));
  Stream stream(writer, workers, on_progress, layout.written_bytes);
  for (const SynthTensor& tensor : layout.tensors) {
    if (tensor.hole) {
      stream.skip();
    } else {
      stream.write(tensor, SynthRows(layout.shape, tensor, options.seed, options.skew));
    }
  }
  stream.finish();
}

}  // namespace hearth
