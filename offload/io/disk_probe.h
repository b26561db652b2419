// How fast a disk reads, past the page cache: random blocks of several sizes with several reads in
// flight, from a scratch file.
//
// The scratch file has no name from the moment it is open, so it is gone when the process is,
// however that ends.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "offload/machine/machine.h"

namespace hearth {

struct DiskProbeOptions {
  std::vector<int64_t> blocks;  // bytes, ascending, multiples of 4 KiB
  std::vector<int> depths;      // ascending
  double seconds = 0.2;         // a block size and depth
  double write_seconds = 2;     // the scratch file stays smaller where it takes longer to write
  double seconds_max = 10;      // all, writing too; figures that come later are left out
  int64_t bytes_max = int64_t{2} << 30;  // of the scratch file
  bool use_uring = true;
};
DiskProbeOptions full_disk_probe();
DiskProbeOptions quick_disk_probe();

struct DiskProbeResult {
  std::vector<DiskRate> rates;  // by block size, then depth
  int64_t file_bytes;
  std::vector<std::string> notes;  // what a person should know about the figures
};

// Throws Error where the folder can't hold the file, reads fail or O_DIRECT is refused.
// `on_step(done, of)` is called before each figure.
DiskProbeResult probe_disk(const std::filesystem::path& folder, const DiskProbeOptions& options,
                           const std::function<void(int, int)>& on_step = {});

// What random reads of a file reach that is there already, in blocks and as many at once as a
// Reader has by itself. Throws Error where it can't be read.
DiskRate probe_file(const std::filesystem::path& path, double seconds = 0.3);

// The bytes a scratch file may have where so many are free; 0 where that is too little to measure.
int64_t scratch_bytes(int64_t free_bytes, int64_t bytes_max);

}  // namespace hearth
