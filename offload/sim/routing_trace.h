// Which experts the router chose, token after token: recorded from real runs or drawn by the
// generator; what caches and placements are judged on. It holds expert numbers only, no text.
//
// The file, little-endian: "HEARTHRT", u32 version 1, u32 layers, u32 experts, u32 used,
// u64 sequences, u64 tokens of each sequence, u16 picks [token][layer][used], u64 checksum of all
// bytes before it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <utility>
#include <vector>

namespace hearth {

struct RoutingTrace {
  int32_t layers = 0;
  int32_t experts = 0;             // of a layer
  int32_t used = 0;                // by a token in a layer
  std::vector<int64_t> sequences;  // tokens of each; a sequence is one text from its beginning
  std::vector<uint16_t> picks;     // [token][layer][used], best first

  int64_t tokens() const;
  int64_t pairs() const { return int64_t{layers} * experts; }
  std::span<const uint16_t> at(int64_t token, int32_t layer) const {
    return {picks.data() + (token * layers + layer) * used, static_cast<size_t>(used)};
  }
};

// What a trace may have at most: picks are 16-bit, and a small file must not make simulations take
// much memory.
constexpr int32_t kTraceLayersMax = 1024;
constexpr int32_t kTraceExpertsMax = 1 << 16;
constexpr int64_t kTracePairsMax = int64_t{1} << 20;  // layers * experts
constexpr int32_t kTraceUsedMax = 256;

// Whether a trace can have this shape.
bool is_trace_shape(int64_t layers, int64_t experts, int64_t used);

// The first `tokens`, and those that follow; a sequence across the border becomes two.
std::pair<RoutingTrace, RoutingTrace> split_trace(const RoutingTrace& trace, int64_t tokens);

// Overwrites `path`. Throws Error where it can't be written; then no file is left.
void write_trace(const RoutingTrace& trace, const std::filesystem::path& path);
// Throws one Error with all problems where `path` isn't such a file, whole and unchanged. Takes
// memory only for what the file really holds.
RoutingTrace read_trace(const std::filesystem::path& path);

}  // namespace hearth
