#include "format/gguf.h"

#include <fmt/format.h>

#include "base/error.h"
#include "format/gguf_header.h"
#include "format/gguf_split.h"
#include "format/mapped_file.h"

namespace hearth {
namespace {

constexpr const char* kWhatToDo = "The file is damaged or incomplete: download or convert it again";

struct Part {
  ModelFile file;
  GgufHeader header;
};

Part open_part(const std::filesystem::path& path, const std::string& prefix, Problems& problems) {
  Part part;
  part.file.path = path;
  part.file.mapping = std::make_shared<MappedFile>(path);
  part.header = parse_gguf_header(part.file.mapping->bytes(), prefix, problems);
  part.file.version = part.header.version;
  return part;
}

TensorDir assemble(std::vector<Part> parts) {
  TensorDir dir;
  for (Part& part : parts) {
    dir.metadata.merge(part.header.metadata);  // what the first part says stays
    for (TensorEntry& tensor : part.header.tensors) {
      tensor.file = static_cast<int>(dir.files.size());
      std::string name = tensor.name;
      dir.tensors.emplace(std::move(name), std::move(tensor));
    }
    dir.files.push_back(std::move(part.file));
  }
  return dir;
}

int64_t split_count(const GgufHeader& header) {
  const auto found = header.metadata.find("split.count");
  if (found == header.metadata.end()) return 1;
  const int64_t* count = std::get_if<int64_t>(&found->second);
  return count ? *count : 0;
}

TensorDir open_single(const std::filesystem::path& path) {
  Problems problems(path.string());
  std::vector<Part> parts;
  parts.push_back(open_part(path, "", problems));
  const int64_t count = split_count(parts.front().header);
  if (count != 1) {
    problems.add(
        fmt::format("split.count is {}, so this is one part of a split model, but the name "
                    "is not like NAME-00001-of-{:05}.gguf",
                    count, count));
  }
  problems.throw_if_any(kWhatToDo);
  return assemble(std::move(parts));
}

TensorDir open_split(const std::filesystem::path& path, const SplitName& split) {
  Problems problems(path.string());
  std::vector<Part> parts;
  std::vector<std::string> names;
  bool complete = true;
  for (int64_t i = 0; i < split.count; ++i) {
    const std::filesystem::path part_path = i == split.part ? path : split.path_of(i);
    names.push_back(part_path.filename().string());
    std::error_code ignored;
    if (!std::filesystem::exists(part_path, ignored)) {
      problems.add(names.back() + " is missing");
      complete = false;
      continue;
    }
    parts.push_back(open_part(part_path, names.back() + ": ", problems));
    const GgufHeader& header = parts.back().header;
    complete = complete && header.complete;
    if (header.complete) check_part(header, names.back(), i, split.count, problems);
  }
  if (complete) {
    std::vector<const GgufHeader*> headers;
    for (const Part& part : parts) headers.push_back(&part.header);
    check_together(headers, names, problems);
  }
  problems.throw_if_any(
      "All parts of a model must lie in one folder, whole and under their own names");
  return assemble(std::move(parts));
}

}  // namespace

TensorDir open_gguf(const std::filesystem::path& path) {
  const std::optional<SplitName> split = parse_split_name(path);
  if (!split || split->count == 1) return open_single(path);
  return open_split(path, *split);
}

}  // namespace hearth
