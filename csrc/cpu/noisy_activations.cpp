// noisy_activations on the CPU. Compiled once for each instruction set, in a namespace of its own, and without the
// standard library (see noise_add.cpp).
//
// A tile is worked through channel by channel, in rows of neighbouring positions. The clipped rows in the window lie in
// a ring in L1, and a row goes through all stages in chunks, so that nothing else has to stay there. Loops run over
// positions, so no sum changes its order with the vector width. Rows of a channels-last tensor are gathered and
// scattered, and everything between is the same; its forward direction takes a tile in parts of a chunk, whose memory a
// cache holds from channel to channel.
#include <cstddef>

#include "core/activations.h"
#include "noisy_activations_variant.h"

namespace privkernels {
namespace PK_ISA {
namespace {

constexpr int64_t kTile = kActivationTile, kRow = kActivationRow;
constexpr int kChunk = kHalfSpreadGroup;  // positions; one group of float noise where all is aligned

template <class F>
F* row_of(F* ring, int64_t channel, int64_t rows) {
  return ring + channel % rows * kRow;
}

// Where a row of a tile lies in memory.
struct Place {
  int64_t offset, stride;
};

Place place_of(const NoisyActivationsArgs& args, const ActivationTile& tile, int64_t channel) {
  const int64_t first = tile.example * args.channels * args.positions;
  return args.channels_last ? Place{first + tile.begin * args.channels + channel, args.channels}
                            : Place{first + channel * args.positions + tile.begin, 1};
}

template <class T>
void gather(const T* __restrict from, int64_t stride, int count, T* __restrict to) {
  for (int i = 0; i < count; ++i) to[i] = from[i * stride];
}

template <class T>
void scatter(const T* __restrict from, int64_t stride, int count, T* __restrict to) {
  for (int i = 0; i < count; ++i) to[i * stride] = from[i];
}

template <class F>
bool accepted(F x, F largest) {
  return x >= -largest && x <= largest;
}

// The values of a channel from a position of the tile on: where they are, or a copy in `gathered` [count].
template <class Bits>
const Bits* row_bits(const NoisyActivationsArgs& args, const ActivationTile& tile, int64_t channel, int from, int count,
                     Bits* gathered) {
  const Place place = place_of(args, tile, channel);
  const Bits* input = static_cast<const Bits*>(args.input) + place.offset + from * place.stride;
  if (place.stride == 1) return input;
  gather(input, place.stride, count, gathered);
  return gathered;
}

// Asks for the memory of a row that is next: the processor's own prefetching ends with the page, which for 32 x 32
// positions is a row.
template <class T>
void prefetch_row(const T* row, int count) {
  constexpr int kLine = 64 / static_cast<int>(sizeof(T));
  for (int i = 0; i < count; i += kLine) __builtin_prefetch(row + i);
}

template <class Activation>
bool clip_row(const typename Activation::Bits* __restrict input, ActivationTerms<typename Activation::Real> terms,
              typename Activation::Real scale, int count, typename Activation::Real* __restrict out) {
  uint32_t bad = 0;
  for (int i = 0; i < count; ++i) {
    const typename Activation::Real x = Activation::load(input[i]);
    bad |= accepted(x, terms.largest) ? 0u : 1u;
    out[i] = clipped(x, terms, scale);
  }
  return bad != 0;
}

// The clipped values of a channel: out [count]. Returns whether one is refused.
template <class Activation>
bool load_row(const NoisyActivationsArgs& args, const ActivationTile& tile,
              const ActivationTerms<typename Activation::Real>& terms, int64_t channel, int from, int count,
              typename Activation::Real* out) {
  typename Activation::Bits gathered[kTile];
  const auto* input = row_bits(args, tile, channel, from, count, gathered);
  if (input != gathered && channel + 1 < args.channels) prefetch_row(input + args.positions, count);
  return clip_row<Activation>(input, terms, static_cast<typename Activation::Real>(tile.scale), count, out);
}

// --- normalisation ---

// sums[i] = the sum of squares over the rows of channels first to first + N - 1, in this order, from a position on.
template <int N, class F>
void sum_of_squares(F* ring, int64_t first, int64_t rows, int from, int count, F* __restrict sums) {
  const F* row[N];
  for (int j = 0; j < N; ++j) row[j] = row_of(ring, first + j, rows) + from;
  for (int i = 0; i < count; ++i) {
    F sum = row[0][i] * row[0][i];
#pragma GCC unroll 8
    for (int j = 1; j < N; ++j) sum = sum + row[j][i] * row[j][i];
    sums[i] = sum;
  }
}

template <class F>
void sum_window(F* ring, int64_t first, int64_t last, int64_t rows, int from, int count, F* __restrict sums) {
  switch (last - first + 1) {
    case 1: return sum_of_squares<1>(ring, first, rows, from, count, sums);
    case 2: return sum_of_squares<2>(ring, first, rows, from, count, sums);
    case 3: return sum_of_squares<3>(ring, first, rows, from, count, sums);
    case 4: return sum_of_squares<4>(ring, first, rows, from, count, sums);
    case 5: return sum_of_squares<5>(ring, first, rows, from, count, sums);
    case 6: return sum_of_squares<6>(ring, first, rows, from, count, sums);
    case 7: return sum_of_squares<7>(ring, first, rows, from, count, sums);
    default: break;
  }
  sum_of_squares<7>(ring, first, rows, from, count, sums);
  for (int64_t j = first + 7; j <= last; ++j) {
    const F* row = row_of(ring, j, rows) + from;
    for (int i = 0; i < count; ++i) sums[i] = sums[i] + row[i] * row[i];
  }
}

int64_t first_of(int64_t channel, int64_t reach) { return channel > reach ? channel - reach : 0; }

int64_t last_of(int64_t channel, int64_t reach, int64_t channels) {
  return channels - 1 - channel < reach ? channels - 1 : channel + reach;
}

template <Beta beta, class F>
void scale_row(const F* __restrict a, const F* __restrict sums, const ActivationTerms<F>& terms, int count,
               F* __restrict out) {
  const F gamma = terms.gamma, alpha = terms.alpha;
  for (int i = 0; i < count; ++i) {
    out[i] = a[i] * inverse_power<beta>(gamma + alpha * sums[i], terms.beta).power;
  }
}

// --- noise ---

// Noise of neighbouring elements; remembers the last group, of which the next row often takes the rest.
template <class Value, int kGroup>
struct NoiseRow {
  uint64_t group = ~uint64_t{0};
  Value values[kGroup];

  template <class Make>
  void fill(uint64_t element, int count, Value* out, const Make& make) {
    while (count > 0) {
      const int skipped = static_cast<int>(element % kGroup);
      const int taken = count < kGroup - skipped ? count : kGroup - skipped;
      const uint64_t wanted = element / kGroup;
      if (taken == kGroup) {
        make(wanted, out);
      } else {
        if (group != wanted) make(wanted, values);
        group = wanted;
        __builtin_memcpy(out, values + skipped, static_cast<std::size_t>(taken) * sizeof(Value));
      }
      element += static_cast<uint64_t>(taken), out += taken, count -= taken;
    }
  }
};

void normal_group(const NoisyActivationsArgs& args, uint64_t group, float* __restrict out) {
  uint32_t bits[kHalfSpreadGroup];
  half_spread_group(args.key, group, args.attempt * kDrawsOfAttempt + kFloatDraw, kPurposeNoisyActivations, bits);
  normals_of_bits(bits, kHalfSpreadGroup, out);
}

void grid_group(const NoisyActivationsArgs& args, uint64_t group, int64_t* out) {
  group_noise<NoiseDistribution::kGaussian>(args.key, args.tables, args.num_tables, group,
                                            args.attempt * kDrawsOfAttempt, kPurposeNoisyActivations, out);
}

// --- forward ---

template <class Activation>
struct Forward {
  typedef typename Activation::Real F;
  typedef typename Activation::Bits Bits;
  const NoisyActivationsArgs& args;
  const ActivationTile& tile;
  const int count;
  const ActivationTerms<F> terms;
  NoiseRow<float, kHalfSpreadGroup> normals;
  NoiseRow<int64_t, kSpreadGroup> steps;

  // y [n] of a channel from a position on, with its noise, to `out` [n].
  void add_noise(int64_t channel, int from, int n, const F* __restrict y, Bits* __restrict out) {
    const int64_t index = (tile.example * args.channels + channel) * args.positions + tile.begin + from;
    const uint64_t element = args.first_element + static_cast<uint64_t>(index);
    if (args.noise == ActivationNoise::kGrid) {
      int64_t noise[kChunk];
      steps.fill(element, n, noise, [&](uint64_t group, int64_t* to) { grid_group(args, group, to); });
      const double granularity = power_of_two(args.exponent), inverse = power_of_two(-args.exponent);
      for (int i = 0; i < n; ++i) {
        out[i] = store_on_grid<Activation>(static_cast<double>(y[i]), noise[i], granularity, inverse);
      }
    } else if (args.noise == ActivationNoise::kFloat) {
      float noise[kChunk];
      normals.fill(element, n, noise, [&](uint64_t group, float* to) { normal_group(args, group, to); });
      const F std = static_cast<F>(args.noise_std);
      for (int i = 0; i < n; ++i) out[i] = Activation::store(y[i] + std * static_cast<F>(noise[i]));
    } else {
      for (int i = 0; i < n; ++i) out[i] = Activation::store(y[i]);
    }
  }

  void write(int64_t channel, int from, int n, const F* y) {
    const Place place = place_of(args, tile, channel);
    Bits* to = static_cast<Bits*>(args.output) + place.offset + from * place.stride;
    if (place.stride == 1) {
      if (channel + 1 < args.channels) prefetch_row(to + args.positions, n);
      return add_noise(channel, from, n, y, to);
    }
    Bits results[kChunk];
    add_noise(channel, from, n, y, results);
    scatter(results, place.stride, n, to);
  }

  // The first element that is refused; there is one.
  int64_t first_refused() const {
    Bits gathered[kTile];
    for (int64_t channel = 0; channel < args.channels; ++channel) {
      const Bits* input = row_bits(args, tile, channel, 0, count, gathered);
      for (int i = 0; i < count; ++i) {
        if (accepted(Activation::load(input[i]), terms.largest)) continue;
        return (tile.example * args.channels + channel) * args.positions + tile.begin + i;
      }
    }
    return -1;
  }

  template <Beta beta>
  int64_t run(double* scratch) {
    const int64_t rows = window_rows(args);
    F* ring = reinterpret_cast<F*>(scratch);
    F sums[kChunk], y[kChunk];
    bool bad = false;
    int64_t loaded = 0;
    for (int64_t channel = 0; channel < args.channels; ++channel) {
      const int64_t first = first_of(channel, terms.reach), last = last_of(channel, terms.reach, args.channels);
      for (int from = 0; from < count; from += kChunk) {
        const int n = count - from < kChunk ? count - from : kChunk;
        for (int64_t j = loaded; j <= last; ++j) {
          bad |= load_row<Activation>(args, tile, terms, j, from, n, row_of(ring, j, rows) + from);
        }
        const F* a = row_of(ring, channel, rows) + from;
        if (args.window > 0) {
          sum_window(ring, first, last, rows, from, n, sums);
          scale_row<beta>(a, sums, terms, n, y);
        }
        write(channel, from, n, args.window > 0 ? y : a);
      }
      if (bad) return first_refused();
      loaded = last + 1;
    }
    return -1;
  }
};

// --- backward ---

template <class Activation>
struct Backward {
  typedef typename Activation::Real F;
  const NoisyActivationsArgs& args;
  const ActivationTile& tile;
  const int count;
  const ActivationTerms<F> terms;
  const int64_t rows;
  F *ring, *own, *pulled, *sums, *gradient;

  Backward(const NoisyActivationsArgs& arguments, const ActivationTile& part, double* scratch)
      : args(arguments),
        tile(part),
        count(static_cast<int>(part.end - part.begin)),
        terms(activation_terms<Activation>(arguments)),
        rows(window_rows(arguments)) {
    ring = reinterpret_cast<F*>(scratch);
    own = ring + rows * kRow, pulled = own + rows * kRow, sums = pulled + rows * kRow;
    gradient = sums + kRow;
  }

  void load_grad(int64_t channel, F* out) const {
    const Place place = place_of(args, tile, channel);
    gather(static_cast<const F*>(args.grad) + place.offset, place.stride, count, out);
  }

  // What channel i gives: own = grad d^-beta, pulled = own a / d.
  template <Beta beta>
  void output_channel(int64_t channel) {
    const int64_t first = first_of(channel, terms.reach), last = last_of(channel, terms.reach, args.channels);
    sum_window(ring, first, last, rows, 0, count, sums);
    const F* a = row_of(ring, channel, rows);
    F *own_row = row_of(own, channel, rows), *pulled_row = row_of(pulled, channel, rows);
    load_grad(channel, gradient);
    output_row<beta>(a, sums, gradient, own_row, pulled_row);
  }

  template <Beta beta>
  void output_row(const F* __restrict a, const F* __restrict squares, const F* __restrict grad, F* __restrict own_row,
                  F* __restrict pulled_row) const {
    for (int i = 0; i < count; ++i) {
      const InversePower<F> inverse = inverse_power<beta>(terms.gamma + terms.alpha * squares[i], terms.beta);
      const F term = grad[i] * inverse.power;
      own_row[i] = term;
      pulled_row[i] = term * a[i] * inverse.reciprocal;
    }
  }

  // The gradient with respect to a, in `gradient`.
  void input_channel(int64_t channel) {
    const int64_t first = first_of(channel, terms.reach), last = last_of(channel, terms.reach, args.channels);
    for (int i = 0; i < count; ++i) sums[i] = F(0);
    for (int64_t j = first; j <= last; ++j) {
      const F* row = row_of(pulled, j, rows);
      for (int i = 0; i < count; ++i) sums[i] = sums[i] + row[i];
    }
    const F *a = row_of(ring, channel, rows), *own_row = row_of(own, channel, rows);
    const F slope = terms.slope;
    for (int i = 0; i < count; ++i) gradient[i] = own_row[i] - slope * (a[i] * sums[i]);
  }

  // use(channel) for every channel, with its gradient with respect to a in `gradient` and its a in the ring.
  template <Beta beta, class Use>
  void run(const Use& use) {
    int64_t loaded = 0, given = 0;
    for (int64_t channel = 0; channel < args.channels; ++channel) {
      const int64_t reached = last_of(channel, terms.reach, args.channels);
      for (; given <= reached; ++given) {
        const int64_t last = args.window == 0 ? given : last_of(given, terms.reach, args.channels);
        for (; loaded <= last; ++loaded) {
          load_row<Activation>(args, tile, terms, loaded, 0, count, row_of(ring, loaded, rows));
        }
        if (args.window > 0) output_channel<beta>(given);
        if (args.window == 0) load_grad(given, gradient);
      }
      if (args.window > 0) input_channel(channel);
      use(channel);
    }
  }

  void write_row(int64_t channel) {
    typename Activation::Bits gathered[kTile];
    const auto* input = row_bits(args, tile, channel, 0, count, gathered);
    const F scale = static_cast<F>(tile.scale), along = static_cast<F>(tile.along);
    for (int i = 0; i < count; ++i)
      gradient[i] = input_gradient(Activation::load(input[i]), gradient[i], scale, along, terms);
    const Place place = place_of(args, tile, channel);
    scatter(gradient, place.stride, count, static_cast<F*>(args.output) + place.offset);
  }
};

// --- sums over a tile: by position over the channels, then by halves over the positions ---

double fold(double* sums, int count) {
  int width = 1;
  while (width < count) width *= 2;
  for (int i = count; i < width; ++i) sums[i] = 0;
  for (width /= 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) sums[i] = sums[i] + sums[i + width];
  }
  return sums[0];
}

template <class Activation>
double tile_squares(const NoisyActivationsArgs& args, const ActivationTile& tile, double* scratch) {
  typedef typename Activation::Real F;
  const int count = static_cast<int>(tile.end - tile.begin);
  const ActivationTerms<F> terms = activation_terms<Activation>(args);
  double* sums = scratch;
  typename Activation::Bits gathered[kTile];
  for (int i = 0; i < count; ++i) sums[i] = 0;
  for (int64_t channel = 0; channel < args.channels; ++channel) {
    const auto* input = row_bits(args, tile, channel, 0, count, gathered);
    for (int i = 0; i < count; ++i) {
      const double v = static_cast<double>(clipped(Activation::load(input[i]), terms, F(1)));
      sums[i] = sums[i] + v * v;
    }
  }
  return fold(sums, count);
}

template <class Activation, Beta beta>
double tile_products(const NoisyActivationsArgs& args, const ActivationTile& tile, double* scratch) {
  typedef typename Activation::Real F;
  Backward<Activation> backward(args, tile, scratch);
  double sums[kTile];
  for (int i = 0; i < backward.count; ++i) sums[i] = 0;
  backward.template run<beta>([&](int64_t channel) {
    const F* a = row_of(backward.ring, channel, backward.rows);
    for (int i = 0; i < backward.count; ++i) {
      sums[i] = sums[i] + static_cast<double>(a[i]) * static_cast<double>(backward.gradient[i]);
    }
  });
  return fold(sums, backward.count);
}

template <class Activation, Beta beta>
int64_t forward_tile(const NoisyActivationsArgs& args, const ActivationTile& tile, double* scratch) {
  const int64_t step = args.channels_last ? kChunk : kTile;
  int64_t failure = -1;
  for (ActivationTile part = tile; part.begin < tile.end; part.begin = part.end) {
    part.end = tile.end - part.begin < step ? tile.end : part.begin + step;
    const int count = static_cast<int>(part.end - part.begin);
    Forward<Activation> forward{args, part, count, activation_terms<Activation>(args), {}, {}};
    const int64_t refused = forward.template run<beta>(scratch);
    if (refused >= 0 && (failure < 0 || refused < failure)) failure = refused;
  }
  return failure;
}

template <class Activation, Beta beta>
void backward_tile(const NoisyActivationsArgs& args, const ActivationTile& tile, double* scratch) {
  Backward<Activation> backward(args, tile, scratch);
  backward.template run<beta>([&](int64_t channel) { backward.write_row(channel); });
}

// --- choice of the template ---

template <class Activation, class Do>
auto with_beta(const NoisyActivationsArgs& args, const Do& run) {
  switch (beta_kind(args.beta)) {
    case Beta::kHalf: return run.template with<Activation, Beta::kHalf>();
    case Beta::kThreeQuarters: return run.template with<Activation, Beta::kThreeQuarters>();
    case Beta::kOne: return run.template with<Activation, Beta::kOne>();
    default: return run.template with<Activation, Beta::kGeneral>();
  }
}

template <class Do>
auto with_format(const NoisyActivationsArgs& args, const Do& run) {
  switch (args.format) {
    case FloatFormat::kFloat16: return with_beta<Float16Activation>(args, run);
    case FloatFormat::kBFloat16: return with_beta<BFloat16Activation>(args, run);
    case FloatFormat::kFloat64: return with_beta<Float64Activation>(args, run);
    default: return with_beta<Float32Activation>(args, run);
  }
}

struct OnTile {
  const NoisyActivationsArgs& args;
  const ActivationTile& tile;
  double* scratch;
};

struct RunForward : OnTile {
  template <class Activation, Beta beta>
  int64_t with() const {
    return forward_tile<Activation, beta>(args, tile, scratch);
  }
};

struct RunBackward : OnTile {
  template <class Activation, Beta beta>
  void with() const {
    backward_tile<Activation, beta>(args, tile, scratch);
  }
};

struct RunSquares : OnTile {
  template <class Activation, Beta>
  double with() const {
    return tile_squares<Activation>(args, tile, scratch);
  }
};

struct RunProducts : OnTile {
  template <class Activation, Beta beta>
  double with() const {
    return tile_products<Activation, beta>(args, tile, scratch);
  }
};

template <class Run>
auto on_tile(const NoisyActivationsArgs& args, const ActivationTile& tile, double* scratch) {
  return with_format(args, Run{{args, tile, scratch}});
}

}  // namespace

NoisyActivationsVariant noisy_activations_variant() {
  return {on_tile<RunForward>, on_tile<RunBackward>, on_tile<RunSquares>, on_tile<RunProducts>};
}

}  // namespace PK_ISA
}  // namespace privkernels
