#include "cli/app.h"

#include <cstdio>
#include <string>
#include <vector>

#include "cli/commands.h"

namespace hearth::cli {

int run_app(int argc, char** argv) {
  CLI::App app("hearth runs DeepSeek-V4 models privately on this machine.", "hearth");
  app.set_version_flag("--version", "hearth " HEARTH_VERSION);
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  add_run(app);
  add_bench(app);
  add_plan(app);
  add_perplexity(app);
  add_logits(app);
  add_tokenize(app);
  add_inspect(app);
  add_synth(app);
  add_profile(app);
  add_trace(app);
  add_simulate(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    const std::vector<std::string> unknown = app.remaining();
    std::string message = error.what();
    if (app.get_subcommands().empty() && !unknown.empty()) {
      const bool is_option = unknown.front().starts_with("-");
      message =
          (is_option ? "there is no option '" : "there is no command '") + unknown.front() + "'";
    }
    std::fprintf(stderr, "hearth: %s\nRun 'hearth --help' or 'hearth COMMAND --help' for usage.\n",
                 message.c_str());
    return 2;
  }
  return 0;
}

}  // namespace hearth::cli
