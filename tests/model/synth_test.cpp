// Synthetic models are judged as files (do they load, are they what the specification says, are
// they the same every time) and as models (do activations keep their size, does skew move the
// experts), on a small shape.
#include "model/synth.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <set>

#include "base/error.h"
#include "format/dequantize.h"
#include "format/gguf.h"
#include "model/reference.h"
#include "model/synth_blocks.h"
#include "model/synth_layout.h"
#include "model/synth_rows.h"
#include "support.h"

using namespace hearth;

namespace {

SynthShape small_shape() {
  return {.name = "small",
          .layers = 6,
          .dim = 256,
          .heads = 8,
          .head_dim = 64,
          .rope_dim = 16,
          .q_rank = 256,
          .output_groups = 2,
          .output_rank = 128,
          .window = 16,
          .first_ratio = 0,
          .index_heads = 4,
          .index_dim = 32,
          .index_top_k = 8,
          .experts = 32,
          .experts_used = 4,
          .expert_dim = 256,
          .expert_scale = 1.5f,
          .clamp = 10,
          .streams = 4,
          .sinkhorn_iterations = 20,
          .vocab = 2304,
          .context = 4096};
}

SynthOptions options_for(const SynthShape& shape) {
  SynthOptions options;
  options.shape = shape;
  options.vocabulary = test::models("demo.gguf");
  return options;
}

SynthOptions small_options() { return options_for(small_shape()); }

struct Model {
  explicit Model(const std::filesystem::path& path)
      : dir(open_gguf(path)),
        config(read_config(dir, path.string())),
        weights(bind_weights(dir, config, path.string())) {}

  TensorDir dir;
  ModelConfig config;
  ModelWeights weights;
};

// The model that the options describe, in a file of its own.
class Synth {
 public:
  explicit Synth(SynthOptions options) {
    options.out = path();
    write_synth(options);
  }
  std::filesystem::path path() const { return folder_.path() / "synth.gguf"; }
  Model load() const { return Model(path()); }
  int64_t file_bytes() const { return static_cast<int64_t>(std::filesystem::file_size(path())); }
  int64_t disk_bytes() const {
    struct stat status {};
    REQUIRE(stat(path().c_str(), &status) == 0);
    return int64_t{status.st_blocks} * 512;
  }

 private:
  test::TemporaryFolder folder_;
};

double rms(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value) * value;
  return std::sqrt(sum / static_cast<double>(values.size()));
}

std::string refusal(const SynthOptions& options, Error::Kind kind) {
  try {
    write_synth(options);
  } catch (const Error& error) {
    CHECK(error.kind() == kind);
    return error.what();
  }
  return "no error";
}

// How often each expert of the layers with learned routing is picked.
std::vector<double> popularity(const Model& model, const std::vector<int32_t>& tokens) {
  const ReferenceOutput out = run_reference(model.config, model.weights, tokens);
  std::vector<double> counts;
  for (int32_t layer = model.config.hash_layers; layer < model.config.layers; ++layer) {
    std::vector<double> of_layer(model.config.experts);
    for (const int32_t expert : out.picks[layer]) ++of_layer[expert];
    counts.insert(counts.end(), of_layer.begin(), of_layer.end());
  }
  return counts;
}

double share_of_top_quarter(std::vector<double> counts) {
  std::sort(counts.rbegin(), counts.rend());
  const auto quarter = counts.begin() + static_cast<std::ptrdiff_t>(counts.size() / 4);
  return std::accumulate(counts.begin(), quarter, 0.0) /
         std::accumulate(counts.begin(), counts.end(), 0.0);
}

// The part of two distributions that they have in common.
double overlap(const std::vector<double>& a, const std::vector<double>& b) {
  const double sum_a = std::accumulate(a.begin(), a.end(), 0.0);
  const double sum_b = std::accumulate(b.begin(), b.end(), 0.0);
  double common = 0;
  for (size_t i = 0; i < a.size(); ++i) common += std::min(a[i] / sum_a, b[i] / sum_b);
  return common;
}

// Every `step`-th token of a range.
std::vector<int32_t> range_tokens(int32_t range, int32_t first, int32_t step) {
  const int32_t vocab = small_shape().vocab, width = vocab / kSynthTokenRanges;
  std::vector<int32_t> tokens;
  for (int32_t id = range * width + first; id < (range + 1) * width; id += step) {
    CHECK(synth_token_range(id, vocab) == range);
    tokens.push_back(id);
  }
  return tokens;
}

}  // namespace

TEST_CASE(
    "flash: the dimensions of the release, 3.42 GB of experts a layer, no disk space as holes") {
  SynthOptions options = options_for(flash_shape());
  options.holes = SynthHoles::kAll;
  const Synth file(options);
  const Model model = file.load();
  const ModelConfig& c = model.config;
  CHECK(c.layers == 43);
  CHECK(c.dim == 4096);
  CHECK(c.vocab == 129280);
  CHECK(c.context == 1048576);
  CHECK((c.heads == 64 && c.head_dim == 512 && c.rope_dim == 64 && c.window == 128));
  CHECK((c.q_rank == 1024 && c.output_groups == 8 && c.output_rank == 1024));
  CHECK((c.experts == 256 && c.experts_used == 6 && c.expert_dim == 2048 && c.shared_dim == 2048));
  CHECK((c.index_heads == 64 && c.index_dim == 128 && c.index_top_k == 512));
  CHECK((c.streams == 4 && c.sinkhorn_iterations == 20));
  CHECK((c.expert_scale == 1.5f && c.expert_norm && c.hash_layers == 1 && c.mtp_layers == 0));
  CHECK((c.expert_clamp[42] == 10 && c.shared_clamp[0] == 10));
  CHECK((c.rms_eps == 1e-6f && c.hyper_eps == 1e-6f));
  CHECK((c.rope_plain.theta == 10000 && c.rope_plain.factor == 1));
  CHECK((c.rope_compressed.theta == 160000 && c.rope_compressed.factor == 16));
  CHECK((c.rope_compressed.original_context == 65536 && c.rope_compressed.beta_fast == 32));
  CHECK(std::vector(c.kinds.begin(), c.kinds.begin() + 4) ==
        std::vector{LayerKind::kWindow, LayerKind::kCsa, LayerKind::kHca, LayerKind::kCsa});

  const auto type_of = [&](const char* name) { return model.dir.find(name)->type; };
  CHECK(type_of("token_embd.weight") == TensorType::kQ8_0);
  CHECK(type_of("output.weight") == TensorType::kQ8_0);
  CHECK(type_of("blk.42.attn_output_a.weight") == TensorType::kQ8_0);
  CHECK(type_of("blk.42.ffn_up_shexp.weight") == TensorType::kQ8_0);
  CHECK(type_of("blk.42.ffn_down_exps.weight") == TensorType::kMXFP4);
  CHECK(type_of("blk.1.attn_compressor_kv.weight") == TensorType::kF16);
  CHECK(type_of("blk.1.indexer.proj.weight") == TensorType::kF16);
  CHECK(type_of("blk.1.ffn_gate_inp.weight") == TensorType::kF32);
  CHECK(type_of("blk.0.ffn_gate_tid2eid.weight") == TensorType::kI32);

  const auto bytes_of = [&](const char* name) { return model.dir.find(name)->bytes; };
  const uint64_t layer_bytes = bytes_of("blk.0.ffn_gate_exps.weight") +
                               bytes_of("blk.0.ffn_up_exps.weight") +
                               bytes_of("blk.0.ffn_down_exps.weight");
  CHECK(layer_bytes == uint64_t{3422552064});
  CHECK(file.file_bytes() > int64_t{43} * 3422552064);
  CHECK(file.file_bytes() < int64_t{157} * 1000000000);
  CHECK(file.disk_bytes() < 16 * 1000000);  // the vocabulary
}

TEST_CASE("pro: the dimensions of the release") {
  SynthOptions options = options_for(pro_shape());
  options.holes = SynthHoles::kAll;
  CHECK(synth_layout(options).shape.layers == 61);
  options.layers = 2;
  const ModelConfig c = Synth(options).load().config;
  CHECK((c.layers == 2 && c.dim == 7168 && c.heads == 128 && c.head_dim == 512));
  CHECK((c.q_rank == 1536 && c.output_groups == 16 && c.output_rank == 1024));
  CHECK((c.experts == 384 && c.experts_used == 6 && c.expert_dim == 3072));
  CHECK((c.index_top_k == 1024 && c.expert_scale == 2.5f));
  CHECK(c.kinds == std::vector{LayerKind::kHca, LayerKind::kCsa});
}

TEST_CASE("options that make no model are refused, and what does not fit on the disk") {
  test::TemporaryFolder folder;
  const auto refuses = [&](auto change, const std::string& words, Error::Kind kind) {
    SynthOptions options = small_options();
    options.out = folder.path() / "out.gguf";
    change(options);
    const std::string message = refusal(options, kind);
    CHECK_MESSAGE(message.find(words) != std::string::npos, message);
    CHECK(!std::filesystem::exists(folder.path() / "out.gguf"));
  };
  constexpr auto kUsage = Error::Kind::kUsage, kFailed = Error::Kind::kFailed;
  refuses([](SynthOptions& o) { o.layers = -1; }, "--layers: -1 layers", kUsage);
  refuses([](SynthOptions& o) { o.layers = 1025; }, "Choose 1 to 1024", kUsage);
  refuses([](SynthOptions& o) { o.experts = 3; }, "--experts: 3 experts", kUsage);
  refuses([](SynthOptions& o) { o.experts = 4097; }, "Choose 4 to 4096", kUsage);
  refuses([](SynthOptions& o) { o.quant = "i32"; }, "--quant: 'i32'", kUsage);
  refuses([](SynthOptions& o) { o.dense = "fp8"; }, "--dense: 'fp8'", kUsage);
  refuses([](SynthOptions& o) { o.skew = -0.1; }, "--skew", kUsage);
  refuses([](SynthOptions& o) { o.skew = std::nan(""); }, "--skew", kUsage);
  refuses([](SynthOptions& o) { o.quant = "q2", o.shape.expert_dim = 96; }, "blocks of 256",
          kUsage);
  refuses([](SynthOptions& o) { o.shape.vocab = 2047; }, "no vocabulary of up to 2047", kFailed);
  refuses([&](SynthOptions& o) { o.out = folder.path(); }, "cannot create", kFailed);
  refuses([&](SynthOptions& o) { o.out = folder.path() / "none" / "o.gguf"; }, "cannot create",
          kFailed);
  refuses([](SynthOptions& o) { o.shape = flash_shape(), o.layers = 1024, o.experts = 4096; },
          "GB free, the file needs 5631", kFailed);
}

TEST_CASE("the same seed gives the same bytes whatever the threads, another seed others") {
  SynthOptions options = small_options();
  options.skew = 1;
  options.threads = 1;
  const std::string bytes = test::read_text(Synth(options).path());
  options.threads = 3;
  CHECK((test::read_text(Synth(options).path()) == bytes));
  options.seed = 2;
  const std::string other = test::read_text(Synth(options).path());
  REQUIRE(other.size() == bytes.size());
  size_t same = 0;
  for (size_t i = 0; i < bytes.size(); ++i) same += bytes[i] == other[i];
  CHECK(same < bytes.size() / 8);
}

TEST_CASE("a row is the same however the rows are cut, and no two are alike") {
  SynthOptions options = small_options();
  options.layers = 1;
  options.skew = 1;
  const SynthLayout layout = synth_layout(options);
  for (const SynthTensor& tensor : layout.tensors) {
    const SynthRows source(layout.shape, tensor, options.seed, options.skew);
    const auto width = static_cast<size_t>(tensor.row_bytes());
    const auto count = std::min<int64_t>(tensor.rows(), 9);
    std::vector<unsigned char> whole(count * width), row(width);
    source.fill(0, count, whole.data());
    std::set<std::string> seen;
    for (int64_t i = 0; i < count; ++i) {
      source.fill(i, i + 1, row.data());
      CHECK_MESSAGE(std::equal(row.begin(), row.end(), &whole[i * width]), tensor.name);
      CHECK_MESSAGE(seen.emplace(row.begin(), row.end()).second, tensor.name);
    }
  }
}

TEST_CASE("progress ends where the file does") {
  SynthOptions options = small_options();
  options.layers = 1;
  test::TemporaryFolder folder;
  options.out = folder.path() / "out.gguf";
  int64_t last = 0, of = 0;
  bool rises = true;
  write_synth(options, [&](int64_t done, int64_t total) {
    rises = rises && done > last;
    last = done, of = total;
  });
  CHECK(rises);
  CHECK(last == of);
  CHECK(of == synth_layout(options).weight_bytes);
}

TEST_CASE("every format is drawn with the root mean square asked for") {
  constexpr int64_t kCount = 1 << 18;
  std::vector<float> values(kCount);
  for (uint32_t id = 0; id < 64; ++id) {
    const TypeInfo* info = find_type(id);
    if (info == nullptr || info->type == TensorType::kI32) continue;
    for (const float spread : {1.0f, 0.05f, 0.003f, 0.0021f}) {
      std::vector<unsigned char> blocks(row_bytes(info->type, kCount));
      RandomBlocks(info->type, 0, spread).fill(RandomWords(id), kCount, blocks.data());
      dequantize(info->type, blocks.data(), kCount, values.data());
      const double mean = std::accumulate(values.begin(), values.end(), 0.0) / kCount;
      CHECK_MESSAGE(rms(values) == doctest::Approx(spread).epsilon(0.02), info->name);
      CHECK_MESSAGE(std::abs(mean) < 0.12 * spread, info->name);
    }
  }
}

TEST_CASE("extreme spreads of MXFP4 give no NaN scale") {
  std::vector<unsigned char> blocks(17 * 1024);
  for (const float spread : {1e-45f, 3e38f}) {
    RandomBlocks(TensorType::kMXFP4, 0, spread).fill(RandomWords(1), 32 * 1024, blocks.data());
    for (size_t at = 0; at < blocks.size(); at += 17) REQUIRE(blocks[at] < 255);
  }
}

TEST_CASE("streams stay of order one through many layers and logits are finite") {
  for (const int32_t layers : {1, 6, 24}) {
    SynthOptions options = small_options();
    options.layers = layers;
    const Model model = Synth(options).load();
    const ReferenceOutput out =
        run_reference(model.config, model.weights, range_tokens(3, 0, layers > 6 ? 3 : 1));
    CHECK(rms(out.hidden.front()) == doctest::Approx(1).epsilon(0.05));
    for (const auto& hidden : out.hidden) CHECK((rms(hidden) > 0.7 && rms(hidden) < 2));
    CHECK(rms(out.logits) == doctest::Approx(1).epsilon(0.2));
    // Each layer does something.
    for (size_t i = 1; i < out.hidden.size(); ++i) CHECK(out.hidden[i] != out.hidden[i - 1]);
  }
}

TEST_CASE("all formats of experts and of the dense part give models that run alike") {
  const std::vector<int32_t> tokens = range_tokens(1, 0, 16);
  const auto runs = [&](const char* quant, const char* dense) {
    SynthOptions options = small_options();
    options.layers = 2;
    options.quant = quant;
    options.dense = dense;
    const Model model = Synth(options).load();
    const ReferenceOutput out = run_reference(model.config, model.weights, tokens);
    CHECK_MESSAGE((rms(out.hidden.back()) > 0.7 && rms(out.hidden.back()) < 2), quant);
    CHECK_MESSAGE(rms(out.logits) == doctest::Approx(1).epsilon(0.2), quant);
    return model.dir;
  };
  for (const char* quant : {"q4_k", "Q5_K", "q6_k", "q3_k", "q2_k", "iq2_xxs", "iq3_xxs", "q8_0",
                            "q4_0", "iq4_xs", "bf16"}) {
    CHECK(runs(quant, "q8_0").find("blk.1.ffn_up_exps.weight")->type ==
          find_type_by_name(quant)->type);
  }
  const TensorDir q2 = runs("q2", "q4_k");
  CHECK(q2.find("blk.1.ffn_gate_exps.weight")->type == TensorType::kIQ2_XXS);
  CHECK(q2.find("blk.1.ffn_up_exps.weight")->type == TensorType::kIQ2_XXS);
  CHECK(q2.find("blk.1.ffn_down_exps.weight")->type == TensorType::kQ2_K);
  CHECK(q2.find("blk.1.attn_q_b.weight")->type == TensorType::kQ4_K);
  CHECK(q2.find("blk.1.ffn_down_shexp.weight")->type == TensorType::kQ4_K);
  CHECK(q2.find("output.weight")->type == TensorType::kQ8_0);
  CHECK(runs("mxfp4", "bf16").find("blk.0.attn_kv.weight")->type == TensorType::kBF16);
}

TEST_CASE("sparse: the routed experts are holes, the rest is the same, and it runs") {
  SynthOptions options = small_options();
  options.layers = 3;
  const Synth dense(options);
  options.holes = SynthHoles::kRoutedExperts;
  const Synth sparse(options);
  CHECK(sparse.file_bytes() == dense.file_bytes());
  const SynthLayout layout = synth_layout(options);
  const int64_t holes = layout.weight_bytes - layout.written_bytes;
  CHECK(holes == 3 * 3 * 32 * 256 * 256 / 32 * 17);
  CHECK(sparse.disk_bytes() < dense.disk_bytes() - holes * 9 / 10);

  const TensorDir a = open_gguf(dense.path()), b = open_gguf(sparse.path());
  for (const auto& [name, entry] : a.tensors) {
    const unsigned char* other = b.find(name)->data;
    if (name.find("_exps.") == std::string::npos) {
      CHECK_MESSAGE(std::memcmp(entry.data, other, entry.bytes) == 0, name);
    } else {
      CHECK_MESSAGE(std::all_of(other, other + entry.bytes, [](int byte) { return byte == 0; }),
                    name);
    }
  }
  const Model model = sparse.load();
  const ReferenceOutput out = run_reference(model.config, model.weights, range_tokens(0, 0, 8));
  CHECK((rms(out.hidden.back()) > 0.7 && rms(out.hidden.back()) < 2));
}

TEST_CASE("the vocabulary is the other model's, filled up with unused tokens") {
  SynthOptions options = small_options();
  options.layers = 1;
  options.holes = SynthHoles::kAll;
  const TensorDir made = open_gguf(Synth(options).path());
  const TensorDir from = open_gguf(options.vocabulary);
  for (const auto& [key, value] : from.metadata) {
    if (!key.starts_with("tokenizer.") || key == "tokenizer.ggml.tokens" ||
        key == "tokenizer.ggml.token_type") {
      continue;
    }
    REQUIRE_MESSAGE(made.metadata.contains(key), key);
    CHECK_MESSAGE((made.metadata.at(key) == value), key);
  }
  using Texts = std::vector<std::string>;
  using Numbers = std::vector<int64_t>;
  const auto& tokens = std::get<Texts>(made.metadata.at("tokenizer.ggml.tokens"));
  const auto& known = std::get<Texts>(from.metadata.at("tokenizer.ggml.tokens"));
  REQUIRE(tokens.size() == 2304);
  CHECK(std::equal(known.begin(), known.end(), tokens.begin()));
  CHECK(std::set(tokens.begin(), tokens.end()).size() == tokens.size());
  const auto& types = std::get<Numbers>(made.metadata.at("tokenizer.ggml.token_type"));
  REQUIRE(types.size() == tokens.size());
  CHECK(types[0] == 3);
  CHECK(std::all_of(types.begin() + 2048, types.end(), [](int64_t type) { return type == 5; }));
}

TEST_CASE("the hash layer sends each token to distinct experts, evenly") {
  const Model model = Synth(small_options()).load();
  const std::vector<int32_t>& table = model.weights.layers[0].moe.hash_table;
  REQUIRE(table.size() == 2304 * 4);
  std::vector<int> counts(32);
  for (size_t token = 0; token < 2304; ++token) {
    std::set<int32_t> picked(&table[4 * token], &table[4 * token] + 4);
    CHECK(picked.size() == 4);
    for (const int32_t expert : picked) ++counts[expert];
  }
  // 288 +- 16 each.
  for (const int count : counts) CHECK((count > 208 && count < 368));
  CHECK(model.weights.layers[1].moe.hash_table.empty());
}

TEST_CASE("skew makes some experts popular, and others in another range of tokens") {
  SynthOptions options = small_options();
  options.layers = 3;
  const Model even = Synth(options).load();
  options.skew = 0.6;
  const Model skewed = Synth(options).load();

  std::vector<int32_t> mixed;
  for (int32_t i = 0; i < 192; ++i) mixed.push_back(i * 1171 % 2304);
  const double even_share = share_of_top_quarter(popularity(even, mixed));
  const double skewed_share = share_of_top_quarter(popularity(skewed, mixed));
  MESSAGE("top quarter: even ", even_share, " skewed ", skewed_share);
  CHECK(even_share < 0.40);
  CHECK(skewed_share > even_share + 0.04);

  const auto here = popularity(skewed, range_tokens(5, 0, 2));
  const auto again = popularity(skewed, range_tokens(5, 1, 2));
  const auto there = popularity(skewed, range_tokens(11, 0, 2));
  MESSAGE("overlap: same range ", overlap(here, again), " another ", overlap(here, there));
  CHECK(overlap(here, again) > 0.8);
  CHECK(overlap(here, there) < 0.6);
  CHECK(overlap(popularity(even, range_tokens(5, 0, 2)), popularity(even, range_tokens(11, 0, 2))) >
        0.7);
}
