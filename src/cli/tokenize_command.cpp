// `hearth tokenize`: text to ids.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "format/gguf.h"
#include "text/tokenizer.h"

namespace hearth::cli {
namespace {

struct TokenizeOptions {
  std::string model;
  std::string file;
  std::string text;
  bool special = false;
};

}  // namespace

void add_tokenize(CLI::App& app) {
  auto options = std::make_shared<TokenizeOptions>();
  CLI::App* command = app.add_subcommand("tokenize", "Token ids of a text, as a JSON array");
  add_model_argument(*command, options->model);
  auto* file = command->add_option("-f,--file", options->file, "Text file; - is standard input");
  command->add_option("-p,--prompt", options->text, "The text itself")->excludes(file);
  command->add_flag("--special", options->special, "Strings of special tokens become these tokens");
  command->add_flag("--json")->description("Accepted for uniformity: the output is JSON anyway");
  command->callback([options, command] {
    if (command->count("-f") + command->count("-p") == 0) {
      throw usage_error("there is no text", "tokenize", "Give -p TEXT or -f FILE");
    }
    const std::filesystem::path path = model_path(options->model);
    const TensorDir dir = open_gguf(path);
    const Tokenizer tokenizer(dir, path.string());
    const std::string text = options->file.empty() ? options->text : read_file(options->file);
    const auto ids =
        tokenizer.encode(text, options->special ? Specials::kMatch : Specials::kAsText);
    fmt::print("[{}]\n", fmt::join(ids, ", "));
  });
}

}  // namespace hearth::cli
