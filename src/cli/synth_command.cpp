// `hearth synth`: random models of true width.
#include "model/synth.h"

#include <fmt/format.h>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/progress.h"
#include "offload/machine/topology.h"

namespace hearth::cli {
namespace {

struct Options {
  std::string shape;
  bool sparse = false;
  SynthOptions synth;
};

void synth(Options options) {
  SynthOptions& synth = options.synth;
  synth.shape = options.shape == "pro" ? pro_shape() : flash_shape();
  synth.holes = options.sparse ? SynthHoles::kRoutedExperts : SynthHoles::kNone;
  synth.vocabulary = model_path("");
  if (synth.threads == 0) synth.threads = Topology::of_this_machine().cores();
  ProgressBar bar("Writing");
  write_synth(synth, [&](int64_t done, int64_t total) { bar.show(done, total); });
  bar.clear();
  fmt::print("{}: {}\n", synth.out.string(),
             format_bytes(static_cast<double>(std::filesystem::file_size(synth.out))));
}

}  // namespace

void add_synth(CLI::App& app) {
  auto options = std::make_shared<Options>();
  SynthOptions& synth_options = options->synth;
  synth_options.threads = 0;
  CLI::App* command =
      app.add_subcommand("synth", "Write a random model of true width, to measure with");
  command->add_option("SHAPE", options->shape, "flash or pro")
      ->required()
      ->check(CLI::IsMember({"flash", "pro"}));
  command->add_option("--out", synth_options.out, "Where the GGUF file goes")->required();
  command->add_option("--layers", synth_options.layers, "Layers; 0: all of them")
      ->capture_default_str();
  command->add_option("--experts", synth_options.experts, "Routed experts a layer; 0: all of them")
      ->capture_default_str();
  command
      ->add_option("--quant", synth_options.quant,
                   "Format of the routed experts, or q2: IQ2_XXS and Q2_K")
      ->capture_default_str();
  command->add_option("--dense", synth_options.dense, "Format of attention and shared experts")
      ->capture_default_str();
  command->add_flag("--sparse", options->sparse,
                    "Leave the routed experts as holes that take no space");
  command
      ->add_option("--skew", synth_options.skew,
                   "How unevenly experts are used; 0.6 is like real text")
      ->capture_default_str();
  command->add_option("--seed", synth_options.seed, "Same seed, same file")->capture_default_str();
  command
      ->add_option("--threads", synth_options.threads, "Threads that write; 0: one a physical core")
      ->capture_default_str();
  command->callback([options] { synth(*options); });
}

}  // namespace hearth::cli
