// The forward pass by the letter of the architecture, in its order: embedding, then per block
// hyper-connection, attention, hyper-connection, experts, then the head. Sums are kept in double,
// values between steps in float32.
#include "model/reference.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "format/dequantize.h"

namespace hearth {
namespace {

// Row after row; the comment beside each one gives its shape. S is the number of tokens.
using Floats = std::vector<float>;

// ---- vectors and matrices ----

float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }
float softplus(float x) { return std::max(x, 0.0f) + std::log1p(std::exp(-std::abs(x))); }
float silu(float x) { return x * sigmoid(x); }

float dot(const float* a, const float* b, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(a[i]) * b[i];
  return static_cast<float>(sum);
}

// x / sqrt(mean(x^2) + eps), times the gain where there is one.
void rms_norm(std::span<float> x, const Vector* gain, float eps) {
  double squares = 0;
  for (const float value : x) squares += static_cast<double>(value) * value;
  const double scale = 1 / std::sqrt(squares / static_cast<double>(x.size()) + eps);
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(x[i] * scale) * (gain == nullptr ? 1 : (*gain)[i]);
  }
}

void rms_norm_rows(Floats& x, int64_t width, const Vector* gain, float eps) {
  for (size_t at = 0; at < x.size(); at += width)
    rms_norm({x.data() + at, size_t(width)}, gain, eps);
}

Floats dequantized(const Matrix& matrix) {
  Floats values(matrix.rows * matrix.cols);
  dequantize(matrix.type, matrix.data, matrix.rows * matrix.cols, values.data());
  return values;
}

// x [n, cols] -> [n, rows]
Floats project(const Matrix& matrix, const Floats& x) {
  const Floats weights = dequantized(matrix);
  const size_t count = x.size() / matrix.cols;
  Floats y(count * matrix.rows);
  for (size_t n = 0; n < count; ++n) {
    for (int64_t row = 0; row < matrix.rows; ++row) {
      y[n * matrix.rows + row] = dot(&weights[row * matrix.cols], &x[n * matrix.cols], matrix.cols);
    }
  }
  return y;
}

// The `count` largest values' indices, best first; the lower index wins a tie.
std::vector<int32_t> top_k(const Floats& values, int32_t count) {
  std::vector<int32_t> chosen;
  std::vector<bool> taken(values.size());
  while (static_cast<int32_t>(chosen.size()) < count) {
    int32_t best = -1;
    for (int32_t i = 0; i < static_cast<int32_t>(values.size()); ++i) {
      if (!taken[i] && (best < 0 || values[i] > values[best])) best = i;
    }
    taken[best] = true;
    chosen.push_back(best);
  }
  return chosen;
}

// The `count` largest of the finished entries' scores. `entries` counts the unfinished too, which
// rank last. Ties fall as the golden outputs have them: as std::nth_element leaves them.
std::vector<int32_t> index_top_k(const Floats& scores, size_t entries, int32_t count) {
  std::vector<std::pair<float, int32_t>> queue;
  for (size_t e = 0; e < entries; ++e) {
    queue.emplace_back(e < scores.size() ? scores[e] : -INFINITY, static_cast<int32_t>(e));
  }
  const size_t kept = std::min<size_t>(count, entries);
  std::nth_element(queue.begin(), queue.begin() + (kept - 1), queue.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<int32_t> chosen;
  for (size_t i = 0; i < kept; ++i) {
    if (queue[i].first > -INFINITY) chosen.push_back(queue[i].second);
  }
  return chosen;
}

// ---- RoPE ----

// Angle per position of pair i, with YaRN's change of frequency.
std::vector<double> rope_frequencies(const RopeScaling& rope, int32_t dims) {
  const auto corr = [&](double rotations) {
    return dims * std::log(rope.original_context / (2 * M_PI * rotations)) /
           (2 * std::log(rope.theta));
  };
  std::vector<double> frequencies(dims / 2);
  for (int32_t i = 0; i < dims / 2; ++i) {
    const double plain = std::pow(rope.theta, -2.0 * i / dims);
    frequencies[i] = plain;
    if (rope.factor == 1) continue;
    const double low = std::max(std::floor(corr(rope.beta_fast)), 0.0);
    const double high = std::min(std::ceil(corr(rope.beta_slow)), dims - 1.0);
    const double ramp = std::clamp((i - low) / std::max(high - low, 0.001), 0.0, 1.0);
    frequencies[i] = plain / rope.factor * ramp + plain * (1 - ramp);
  }
  return frequencies;
}

// Rotates the interleaved pairs of the trailing dims of `head`; a negative position turns them
// back.
void rotate(std::span<float> head, const std::vector<double>& frequencies, double position) {
  float* pair = head.data() + head.size() - 2 * frequencies.size();
  for (const double frequency : frequencies) {
    const double cosine = std::cos(position * frequency);
    const double sine = std::sin(position * frequency);
    const double a = pair[0], b = pair[1];
    pair[0] = static_cast<float>(a * cosine - b * sine);
    pair[1] = static_cast<float>(a * sine + b * cosine);
    pair += 2;
  }
}

// x [S, heads, width], each head at the position of its token.
void rotate_rows(Floats& x, int64_t heads, int64_t width, const std::vector<double>& frequencies) {
  for (size_t row = 0; row * width < x.size(); ++row) {
    rotate({&x[row * width], size_t(width)}, frequencies, static_cast<double>(row / heads));
  }
}

// ---- hyper-connections ----

struct Mix {
  Floats pre;    // [N]
  Floats post;   // [N]
  Floats cross;  // [N, N]: C
};

// Divides every row (or column) of C by its sum + eps.
void normalize(Floats& cross, int32_t n, bool rows, float eps) {
  for (int32_t i = 0; i < n; ++i) {
    const int32_t first = rows ? i * n : i, step = rows ? 1 : n;
    float sum = 0;
    for (int32_t j = 0; j < n; ++j) sum += cross[first + j * step];
    for (int32_t j = 0; j < n; ++j) cross[first + j * step] /= sum + eps;
  }
}

// Sinkhorn's balancing of C, from logits [N, N].
Floats balanced(Floats cross, const ModelConfig& config) {
  const int32_t n = config.streams;
  for (int32_t row = 0; row < n; ++row) {
    float* c = &cross[row * n];
    const float largest = *std::max_element(c, c + n);
    float sum = 0;
    for (int32_t j = 0; j < n; ++j) sum += c[j] = std::exp(c[j] - largest);
    for (int32_t j = 0; j < n; ++j) c[j] = c[j] / sum + config.hyper_eps;
  }
  normalize(cross, n, false, config.hyper_eps);
  for (int32_t i = 1; i < config.sinkhorn_iterations; ++i) {
    normalize(cross, n, true, config.hyper_eps);
    normalize(cross, n, false, config.hyper_eps);
  }
  return cross;
}

// fn . rms(flatten(h)) for every token: [S, rows of fn]
Floats stream_mixes(const ModelConfig& config, const Matrix& fn, Floats streams) {
  rms_norm_rows(streams, int64_t{config.streams} * config.dim, nullptr, config.rms_eps);
  return project(fn, streams);
}

// The mixes m [(2 + N) N] of one token.
Mix hyper_mix(const ModelConfig& config, const HyperWeights& weights, const float* m) {
  const int32_t n = config.streams;
  const auto scaled = [&](int32_t i, int32_t part) {
    return m[i] * weights.scale[part] + weights.base[i];
  };
  Mix mix;
  for (int32_t i = 0; i < n; ++i) mix.pre.push_back(sigmoid(scaled(i, 0)) + config.hyper_eps);
  for (int32_t i = n; i < 2 * n; ++i) mix.post.push_back(2 * sigmoid(scaled(i, 1)));
  for (int32_t i = 2 * n; i < config.mixes(); ++i) mix.cross.push_back(scaled(i, 2));
  mix.cross = balanced(std::move(mix.cross), config);
  return mix;
}

// sum_n pre[n] * h[n] of one token, added to x [D].
void collapse(const ModelConfig& config, const Floats& pre, const float* h, float* x) {
  for (int32_t n = 0; n < config.streams; ++n) {
    for (int32_t d = 0; d < config.dim; ++d) x[d] += pre[n] * h[n * config.dim + d];
  }
}

// h'[k] = post[k] * y + sum_j C[j, k] * h[j] of one token, in place.
void expand(const ModelConfig& config, const Mix& mix, const float* y, float* h) {
  const int32_t streams = config.streams;
  for (int32_t d = 0; d < config.dim; ++d) {
    Floats next(streams);
    for (int32_t k = 0; k < streams; ++k) {
      next[k] = mix.post[k] * y[d];
      for (int32_t j = 0; j < streams; ++j) {
        next[k] += mix.cross[j * streams + k] * h[j * config.dim + d];
      }
    }
    for (int32_t k = 0; k < streams; ++k) h[k * config.dim + d] = next[k];
  }
}

// One half of a block: mixes the streams h [S, N, D] to one input, normalises it, runs `sublayer`
// [S, D] -> [S, D] and spreads its output over the streams.
template <typename Sublayer>
void hyper_connection(const ModelConfig& config, const HyperWeights& weights, const Vector& norm,
                      Floats& h, Sublayer&& sublayer) {
  const int64_t width = int64_t{config.streams} * config.dim;
  const size_t tokens = h.size() / width;
  const Floats m = stream_mixes(config, weights.fn, h);
  std::vector<Mix> mixes;
  Floats x(tokens * config.dim);
  for (size_t t = 0; t < tokens; ++t) {
    mixes.push_back(hyper_mix(config, weights, &m[t * config.mixes()]));
    collapse(config, mixes[t].pre, &h[t * width], &x[t * config.dim]);
  }
  rms_norm_rows(x, config.dim, &norm, config.rms_eps);
  const Floats y = sublayer(x);
  for (size_t t = 0; t < tokens; ++t) expand(config, mixes[t], &y[t * config.dim], &h[t * width]);
}

// ---- compressor ----

// The softmax over gates, applied to values.
struct GatedMean {
  std::vector<double> gates, values;
  void add(float gate, float value) {
    gates.push_back(gate);
    values.push_back(value);
  }
  float mean() const {
    const double largest = *std::max_element(gates.begin(), gates.end());
    double sum = 0, weighted = 0;
    for (size_t i = 0; i < gates.size(); ++i) {
      const double weight = std::exp(gates[i] - largest);
      sum += weight;
      weighted += weight * values[i];
    }
    return static_cast<float>(weighted / sum);
  }
};

// x [S, D] -> the entries of all finished windows [S / ratio, width], normed and rotated.
Floats compress(const ModelConfig& config, const CompressorWeights& weights, LayerKind kind,
                int64_t width, const Floats& x) {
  const int64_t ratio = static_cast<int64_t>(kind);
  const int64_t w = weights.value.rows;
  const int64_t entries = static_cast<int64_t>(x.size()) / config.dim / ratio;
  const Floats value = project(weights.value, x);  // [S, w]
  const Floats gate = project(weights.gate, x);    // [S, w]
  const std::vector<double> frequencies = rope_frequencies(config.rope_compressed, config.rope_dim);

  Floats out(entries * width);
  for (int64_t e = 0; e < entries; ++e) {
    for (int64_t c = 0; c < width; ++c) {
      GatedMean mixed;
      const auto add_window = [&](int64_t window, int64_t column) {
        for (int64_t j = 0; j < ratio; ++j) {
          const int64_t at = (window * ratio + j) * w + column;
          mixed.add(gate[at] + weights.ape[j * w + column], value[at]);
        }
      };
      // CSA windows overlap: the first half of the columns speaks for the window before.
      if (kind == LayerKind::kCsa && e > 0) add_window(e - 1, c);
      add_window(e, kind == LayerKind::kCsa ? width + c : c);
      out[e * width + c] = mixed.mean();
    }
    const std::span<float> entry(&out[e * width], width);
    rms_norm(entry, &weights.norm, config.rms_eps);
    rotate(entry, frequencies, static_cast<double>(e * ratio));
  }
  return out;
}

// ---- indexer ----

// For every token the compressed entries its attention sees, out of those finished at its position.
std::vector<std::vector<int32_t>> index_entries(const ModelConfig& config,
                                                const IndexerWeights& weights, const Floats& x,
                                                const Floats& qr) {
  const int64_t heads = config.index_heads, width = config.index_dim;
  const Floats keys = compress(config, weights.keys, LayerKind::kCsa, width, x);  // [E, width]
  Floats query = project(weights.query, qr);  // [S, heads, width]
  rotate_rows(query, heads, width, rope_frequencies(config.rope_compressed, config.rope_dim));
  const Floats head_mix = project(weights.head_mix, x);  // [S, heads]
  const float scale = 1 / std::sqrt(static_cast<float>(heads * width));

  std::vector<std::vector<int32_t>> visible(x.size() / config.dim);
  for (size_t t = 0; t < visible.size(); ++t) {
    Floats scores((t + 1) / 4);
    for (size_t e = 0; e < scores.size(); ++e) {
      double score = 0;
      for (int64_t h = 0; h < heads; ++h) {
        const float match = dot(&query[(t * heads + h) * width], &keys[e * width], width);
        score += static_cast<double>(head_mix[t * heads + h]) * std::max(match, 0.0f);
      }
      scores[e] = static_cast<float>(score) * scale;
    }
    if (scores.empty()) continue;
    visible[t] = index_top_k(scores, visible.size() / 4, config.index_top_k);
  }
  return visible;
}

std::vector<std::vector<int32_t>> all_entries(size_t tokens, int64_t ratio) {
  std::vector<std::vector<int32_t>> visible(tokens);
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t e = 0; e < (t + 1) / ratio; ++e) visible[t].push_back(static_cast<int32_t>(e));
  }
  return visible;
}

// ---- attention ----

// softmax([q . K / sqrt(d), sink])[without the sink] . K for one head
Floats attend(const float* q, const std::vector<const float*>& keys, float sink, int64_t width) {
  const double scale = 1 / std::sqrt(static_cast<double>(width));
  std::vector<double> weights;
  double largest = sink;
  for (const float* key : keys) {
    weights.push_back(dot(q, key, width) * scale);
    largest = std::max(largest, weights.back());
  }
  double sum = std::exp(sink - largest);
  for (double& weight : weights) sum += weight = std::exp(weight - largest);
  std::vector<double> out(width);
  for (size_t i = 0; i < keys.size(); ++i) {
    for (int64_t d = 0; d < width; ++d) out[d] += weights[i] / sum * keys[i][d];
  }
  return Floats(out.begin(), out.end());
}

// o [S, heads * head_dim] -> [S, D]: a low-rank projection a group, then one of their
// concatenation.
Floats output_projection(const ModelConfig& config, const AttentionWeights& weights,
                         const Floats& o) {
  const int64_t width = weights.output_a.cols;  // of one group's heads
  const int64_t rank = config.output_rank;
  const Floats a = dequantized(weights.output_a);
  Floats low(o.size() / width * rank);  // [S, groups, rank]
  for (size_t row = 0; row * width < o.size(); ++row) {
    const int64_t group = row % config.output_groups;
    for (int64_t r = 0; r < rank; ++r) {
      low[row * rank + r] = dot(&a[(group * rank + r) * width], &o[row * width], width);
    }
  }
  return project(weights.output_b, low);
}

// x [S, D] -> [S, D]
Floats attention(const ModelConfig& config, const AttentionWeights& weights, LayerKind kind,
                 const Floats& x) {
  const int64_t heads = config.heads, width = config.head_dim;
  const size_t tokens = x.size() / config.dim;
  const bool compressed = kind != LayerKind::kWindow;
  const std::vector<double> frequencies =
      rope_frequencies(compressed ? config.rope_compressed : config.rope_plain, config.rope_dim);

  Floats qr = project(weights.q_a, x);
  rms_norm_rows(qr, config.q_rank, &weights.q_a_norm, config.rms_eps);
  Floats q = project(weights.q_b, qr);  // [S, heads, width]
  rms_norm_rows(q, width, nullptr, config.rms_eps);
  rotate_rows(q, heads, width, frequencies);
  Floats kv = project(weights.kv, x);  // [S, width]
  rms_norm_rows(kv, width, &weights.kv_norm, config.rms_eps);
  rotate_rows(kv, 1, width, frequencies);

  Floats entries;  // [S / ratio, width]
  std::vector<std::vector<int32_t>> visible(tokens);
  if (compressed) entries = compress(config, weights.compressor, kind, width, x);
  if (kind == LayerKind::kHca) visible = all_entries(tokens, 128);
  if (kind == LayerKind::kCsa) visible = index_entries(config, weights.indexer, x, qr);

  Floats o(tokens * heads * width);
  for (size_t t = 0; t < tokens; ++t) {
    std::vector<const float*> keys;
    for (size_t s = t + 1 - std::min<size_t>(t + 1, config.window); s <= t; ++s) {
      keys.push_back(&kv[s * width]);
    }
    for (const int32_t e : visible[t]) keys.push_back(&entries[e * width]);
    for (int64_t h = 0; h < heads; ++h) {
      const size_t at = (t * heads + h) * width;
      Floats head = attend(&q[at], keys, weights.sinks[h], width);
      rotate(head, frequencies, -static_cast<double>(t));
      std::copy(head.begin(), head.end(), o.begin() + at);
    }
  }
  return output_projection(config, weights, o);
}

// ---- experts ----

// W2( silu(min(W1 x, L)) * clamp(W3 x, -L, L) ) for rows x [n, D]
Floats expert(const ExpertWeights& weights, const Floats& x, float clamp) {
  Floats gate = project(weights.gate, x);
  const Floats up = project(weights.up, x);
  for (size_t i = 0; i < gate.size(); ++i) {
    gate[i] = silu(std::min(gate[i], clamp)) * std::clamp(up[i], -clamp, clamp);
  }
  return project(weights.down, gate);
}

// The experts of one token with scores s [experts].
std::vector<int32_t> choose(const ModelConfig& config, const MoeWeights& weights, int32_t layer,
                            int32_t token, Floats s) {
  if (layer < config.hash_layers) {
    const int32_t* row = &weights.hash_table[int64_t{token} * config.experts_used];
    return {row, row + config.experts_used};
  }
  for (int32_t e = 0; e < config.experts; ++e) s[e] += weights.bias[e];
  return top_k(s, config.experts_used);
}

// The weights of the chosen experts, from scores without bias.
Floats pick_weights(const ModelConfig& config, const float* s, std::span<const int32_t> picks) {
  Floats weights;
  float sum = 0;
  for (const int32_t e : picks) sum += s[e];
  for (const int32_t e : picks) {
    weights.push_back((config.expert_norm ? s[e] / sum : s[e]) * config.expert_scale);
  }
  return weights;
}

// x [S, D] -> [S, D]; `picks` receives the chosen experts [S, used].
Floats moe(const ModelConfig& config, const MoeWeights& weights, int32_t layer,
           std::span<const int32_t> tokens, const Floats& x, std::vector<int32_t>& picks) {
  Floats s = project(weights.router, x);  // [S, experts]
  for (float& score : s) score = std::sqrt(softplus(score));
  std::vector<std::vector<std::pair<size_t, float>>> guests(config.experts);  // token, weight
  for (size_t t = 0; t < tokens.size(); ++t) {
    const float* scores = &s[t * config.experts];
    const std::vector<int32_t> chosen =
        choose(config, weights, layer, tokens[t], {scores, scores + config.experts});
    const Floats shares = pick_weights(config, scores, chosen);
    for (size_t i = 0; i < chosen.size(); ++i) guests[chosen[i]].emplace_back(t, shares[i]);
    picks.insert(picks.end(), chosen.begin(), chosen.end());
  }

  const int32_t dim = config.dim;
  Floats out = expert(weights.shared, x, config.shared_clamp[layer]);
  for (int32_t e = 0; e < config.experts; ++e) {
    Floats inputs;
    for (const auto& [t, share] : guests[e]) {
      inputs.insert(inputs.end(), x.begin() + t * dim, x.begin() + (t + 1) * dim);
    }
    const ExpertWeights one{expert_slice(weights.routed.stacks.gate, config.experts, e),
                            expert_slice(weights.routed.stacks.up, config.experts, e),
                            expert_slice(weights.routed.stacks.down, config.experts, e)};
    const Floats outputs = expert(one, inputs, config.expert_clamp[layer]);
    for (size_t i = 0; i < guests[e].size(); ++i) {
      const auto& [t, share] = guests[e][i];
      for (int32_t d = 0; d < dim; ++d) out[t * dim + d] += share * outputs[i * dim + d];
    }
  }
  return out;
}

// ---- the model ----

// h [S, N, D]: every stream starts as the token's embedding.
Floats embed(const ModelConfig& config, const Matrix& embedding, std::span<const int32_t> tokens) {
  Floats h;
  Floats row(config.dim);
  for (const int32_t token : tokens) {
    HEARTH_CHECK(token >= 0 && token < config.vocab);
    const int64_t offset = token * row_bytes(embedding.type, config.dim);
    dequantize(embedding.type, embedding.data + offset, config.dim, row.data());
    for (int32_t n = 0; n < config.streams; ++n) h.insert(h.end(), row.begin(), row.end());
  }
  return h;
}

// h [S, N, D] -> logits [S, vocab]
Floats head(const ModelConfig& config, const ModelWeights& weights, const Floats& h) {
  const int64_t width = int64_t{config.streams} * config.dim;
  const HyperWeights& hyper = weights.head_hyper;
  const Floats m = stream_mixes(config, hyper.fn, h);  // [S, N]
  Floats x(h.size() / config.streams);
  for (size_t t = 0; t * width < h.size(); ++t) {
    Floats pre;
    for (int32_t n = 0; n < config.streams; ++n) {
      const float mix = m[t * config.streams + n] * hyper.scale[0] + hyper.base[n];
      pre.push_back(sigmoid(mix) + config.hyper_eps);
    }
    collapse(config, pre, &h[t * width], &x[t * config.dim]);
  }
  rms_norm_rows(x, config.dim, &weights.head_norm, config.rms_eps);
  return project(weights.output, x);
}

}  // namespace

ReferenceOutput run_reference(const ModelConfig& config, const ModelWeights& weights,
                              std::span<const int32_t> tokens) {
  ReferenceOutput out;
  out.picks.resize(config.layers);
  Floats h = embed(config, weights.embedding, tokens);
  out.hidden.push_back(h);
  for (int32_t i = 0; i < config.layers; ++i) {
    const LayerWeights& layer = weights.layers[i];
    hyper_connection(config, layer.attention_hyper, layer.attention.norm, h, [&](const Floats& x) {
      return attention(config, layer.attention, config.kinds[i], x);
    });
    hyper_connection(config, layer.moe_hyper, layer.moe.norm, h, [&](const Floats& x) {
      return moe(config, layer.moe, i, tokens, x, out.picks[i]);
    });
    out.hidden.push_back(h);
  }
  out.logits = head(config, weights, h);
  return out;
}

}  // namespace hearth
