#include "offload/sim/routing_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <fstream>
#include <numeric>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "base/hash.h"
#include "format/byte_reader.h"
#include "format/mapped_file.h"

namespace hearth {
namespace {

static_assert(std::endian::native == std::endian::little, "the file's numbers are little-endian");

constexpr std::string_view kMagic = "HEARTHRT";
constexpr uint32_t kVersion = 1;

template <typename T>
void append(std::vector<unsigned char>& bytes, T value) {
  const auto* from = reinterpret_cast<const unsigned char*>(&value);
  bytes.insert(bytes.end(), from, from + sizeof value);
}

std::vector<unsigned char> header_of(const RoutingTrace& trace) {
  std::vector<unsigned char> bytes(kMagic.begin(), kMagic.end());
  append(bytes, kVersion);
  for (const int32_t n : {trace.layers, trace.experts, trace.used}) {
    append(bytes, static_cast<uint32_t>(n));
  }
  append(bytes, static_cast<uint64_t>(trace.sequences.size()));
  for (const int64_t tokens : trace.sequences) append(bytes, static_cast<uint64_t>(tokens));
  return bytes;
}

uint64_t checksum(std::span<const unsigned char> header, std::span<const uint16_t> picks) {
  ResultHash hash;
  hash.add(header);
  hash.add(picks);
  return hash.value();
}

// Reads one file; every problem found on the way is kept.
class Reader {
 public:
  explicit Reader(const std::filesystem::path& path)
      : file_(path), reader_(file_.bytes()), problems_(path.string()) {}

  RoutingTrace read() {
    check_magic();
    RoutingTrace trace;
    trace.layers = read_count("layers", kTraceLayersMax);
    trace.experts = read_count("experts", kTraceExpertsMax);
    trace.used = read_count("used", std::min(kTraceUsedMax, std::max(trace.experts, 1)));
    if (trace.pairs() > kTracePairsMax) {
      problems_.add(fmt::format("{} layers of {} experts are more than {} in all", trace.layers,
                                trace.experts, kTracePairsMax));
    }
    read_sequences(trace);
    finish_part();
    read_picks(trace);
    finish_part();
    return trace;
  }

 private:
  void check_magic() {
    const auto bytes = file_.bytes();
    const bool known = bytes.size() >= kMagic.size() &&
                       std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) == 0;
    if (!known) problems_.add("is not a routing trace");
    finish_part();
    reader_.skip(kMagic.size());
    const auto version = reader_.read<uint32_t>();
    if (version != kVersion) {
      problems_.add(fmt::format("is a trace of version {}, not {}", version, kVersion));
    }
    finish_part();
  }

  int32_t read_count(const char* name, int32_t most) {
    const auto n = reader_.read<uint32_t>();
    if (n >= 1 && n <= static_cast<uint32_t>(most)) return static_cast<int32_t>(n);
    problems_.add(fmt::format("{} is {}, not 1 to {}", name, n, most));
    return 0;
  }

  // The sizes are held against what is there before anything is taken for them.
  void read_sequences(RoutingTrace& trace) {
    const auto sequences = reader_.read<uint64_t>();
    if (sequences > reader_.remaining() / sizeof(uint64_t)) {
      problems_.add(fmt::format("{} sequences don't fit the file", sequences));
      return;
    }
    const uint64_t most = reader_.remaining() / sizeof(uint16_t);
    uint64_t tokens = 0;
    trace.sequences.reserve(sequences);
    for (uint64_t s = 0; s < sequences; ++s) {
      const auto length = reader_.read<uint64_t>();
      if (length > most - tokens) {
        problems_.add(fmt::format("sequence {} of {} tokens doesn't fit the file", s, length));
        return;
      }
      tokens += length;
      trace.sequences.push_back(static_cast<int64_t>(length));
    }
  }

  void read_picks(RoutingTrace& trace) {
    const uint64_t a_token = static_cast<uint64_t>(trace.layers) * trace.used;
    const auto tokens = static_cast<uint64_t>(trace.tokens());
    const uint64_t left = reader_.remaining();
    const uint64_t held = left >= sizeof(uint64_t) ? (left - sizeof(uint64_t)) / 2 : 0;
    if (tokens > held / a_token || tokens * a_token * 2 + sizeof(uint64_t) != left) {
      problems_.add(fmt::format("{} tokens of {} picks need another size than the {} bytes left",
                                tokens, a_token, left));
      return;
    }
    const auto header = file_.bytes().first(reader_.position());
    trace.picks.resize(tokens * a_token);
    if (!trace.picks.empty()) {
      std::memcpy(trace.picks.data(), file_.bytes().data() + header.size(), 2 * tokens * a_token);
    }
    reader_.skip(2 * tokens * a_token);
    if (reader_.read<uint64_t>() != checksum(header, trace.picks)) {
      problems_.add("the checksum doesn't match: bytes were changed");
      return;
    }
    for (const uint16_t pick : trace.picks) {
      if (pick >= trace.experts) {
        problems_.add(fmt::format("picks expert {} of {}", pick, trace.experts));
      }
    }
  }

  void finish_part() {
    if (reader_.failed()) problems_.add("ends in the middle of its header");
    problems_.throw_if_any("Record it again with hearth trace");
  }

  const MappedFile file_;
  ByteReader reader_;
  Problems problems_;
};

}  // namespace

bool is_trace_shape(int64_t layers, int64_t experts, int64_t used) {
  return layers >= 1 && layers <= kTraceLayersMax && experts >= 1 && experts <= kTraceExpertsMax &&
         layers * experts <= kTracePairsMax && used >= 1 &&
         used <= std::min<int64_t>(experts, kTraceUsedMax);
}

int64_t RoutingTrace::tokens() const {
  return std::accumulate(sequences.begin(), sequences.end(), int64_t{0});
}

std::pair<RoutingTrace, RoutingTrace> split_trace(const RoutingTrace& trace, int64_t tokens) {
  HEARTH_CHECK(tokens >= 0 && tokens <= trace.tokens());
  const RoutingTrace empty = {trace.layers, trace.experts, trace.used, {}, {}};
  RoutingTrace before = empty, after = empty;
  int64_t left = tokens;
  for (const int64_t length : trace.sequences) {
    const int64_t part = std::min(left, length);
    if (part > 0) before.sequences.push_back(part);
    if (length > part) after.sequences.push_back(length - part);
    left -= part;
  }
  const auto border = trace.picks.begin() + tokens * trace.layers * trace.used;
  before.picks.assign(trace.picks.begin(), border);
  after.picks.assign(border, trace.picks.end());
  return {std::move(before), std::move(after)};
}

void write_trace(const RoutingTrace& trace, const std::filesystem::path& path) {
  HEARTH_CHECK(std::ssize(trace.picks) == trace.tokens() * trace.layers * trace.used);
  const std::vector<unsigned char> header = header_of(trace);
  const uint64_t sum = checksum(header, trace.picks);
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  if (!out) throw Error("cannot be written", path.string(), "Check the folder and the permissions");
  const auto write = [&](const void* bytes, size_t size) {
    out.write(static_cast<const char*>(bytes), static_cast<std::streamsize>(size));
  };
  write(header.data(), header.size());
  write(trace.picks.data(), trace.picks.size() * sizeof(uint16_t));
  write(&sum, sizeof sum);
  out.close();
  if (out) return;
  std::error_code ignored;
  if (std::filesystem::is_regular_file(path, ignored)) std::filesystem::remove(path, ignored);
  throw Error("could not be written whole", path.string(), "Check the free space of the disk");
}

RoutingTrace read_trace(const std::filesystem::path& path) { return Reader(path).read(); }

}  // namespace hearth
