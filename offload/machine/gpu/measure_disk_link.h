// The way of an expert from a disk into a GPU's memory, end to end: read past the page cache into
// pinned memory, and copied from there while the next ones are read.
#pragma once

#include <cstdint>
#include <filesystem>

#include "device/device.h"
#include "offload/io/scratch_file.h"

namespace hearth {

struct DiskLinkProbe {
  int64_t file_bytes = int64_t{1} << 30;  // of the scratch file, if it is written in time
  double write_seconds = 4;
  int64_t block_bytes = ScratchFile::kWriteBytes;  // as a matrix of an expert; divides kWriteBytes
  int32_t blocks = 32;   // of memory: on their way from the disk, or to the GPU
  double seconds = 0.5;  // a rate may take; each block is used once in any case
};

// GB/s. Under `both` each byte is read and copied.
struct DiskLinkRates {
  double disk;
  double link;
  double both;
};

// `folder` is on the disk. Throws Error where it can't hold the file, memory can't be pinned, reads
// fail or what arrives is not what was read; what was taken is given back in any case.
DiskLinkRates measure_disk_link(Device& device, const std::filesystem::path& folder,
                                const DiskLinkProbe& probe = {});

}  // namespace hearth
