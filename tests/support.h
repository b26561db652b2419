// What every test program shares: where the data lies, and cases that only run where it does.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/limits.h"

namespace hearth::test {

std::filesystem::path data(const std::string& name);    // tests/data, always there
std::filesystem::path models(const std::string& name);  // models/, always there
std::filesystem::path profiles();                       // the folder profiles/
std::filesystem::path binary();                         // the hearth program

// Further conformance data beside the checkout; a user's clone has none.
bool has_shared();
std::filesystem::path shared(const std::string& name);
// Counts a case that needs shared data that is absent; the counts are printed at the end. A program
// that calls this although the data is there fails.
void skip(const std::string& why);
int skipped();

// The limits the program runs under: the defaults, or the least ones with --tiny-limits.
const Limits& limits();
void set_limits(const Limits& limits);

// The device that GPU cases run on: "fake", or what --device names.
const std::string& device();
void set_device(std::string name);
// A program may need what this machine lacks: its gate says what, or nothing. Then no case runs,
// and the program ends with a code that ctest counts as skipped.
constexpr int kNotRunCode = 77;
using Gate = std::string (*)();
void set_gate(Gate gate);
std::string why_not_here();

std::string read_text(const std::filesystem::path& path);
template <typename T>
std::vector<T> read_array(const std::filesystem::path& path);
// Whitespace-separated integers.
std::vector<int32_t> read_ids(const std::filesystem::path& path);

// A file or folder that goes when the object goes.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// What the Error says that it throws; nothing where it throws none.
std::string error_of(const std::function<void()>& action);

// Largest |a - b|; infinity where sizes differ or either side is not finite.
double max_difference(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace hearth::test
