// One function a command: each adds its options to the app and returns what to run once they are
// parsed.
#pragma once

#include <CLI/CLI.hpp>

namespace hearth::cli {

void add_run(CLI::App& app);
void add_bench(CLI::App& app);
void add_plan(CLI::App& app);
void add_perplexity(CLI::App& app);
void add_logits(CLI::App& app);
void add_tokenize(CLI::App& app);
void add_inspect(CLI::App& app);
void add_synth(CLI::App& app);
void add_profile(CLI::App& app);
void add_trace(CLI::App& app);
void add_simulate(CLI::App& app);

}  // namespace hearth::cli
