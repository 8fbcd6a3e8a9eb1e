// Runs noisy_activations for every instruction set of this machine on buffers of the exact size, so that the sanitizers
// it is built with (PRIVKERNELS_SANITIZE) see any access outside them, and compares every bit with the arithmetic of
// core/ on single elements.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "core/activations.h"
#include "cpu/isa.h"
#include "cpu/noisy_activations_variant.h"
#include "tests/expect.h"

namespace privkernels {
namespace {

struct Sizes {
  int64_t batch, channels, positions, window;
};

NoisyActivationsVariant variant_of(Isa isa) {
#if defined(PRIVKERNELS_X86)
  if (isa == Isa::kAvx2) return avx2::noisy_activations_variant();
  if (isa == Isa::kAvx512) return avx512::noisy_activations_variant();
#endif
  (void)isa;
  return base::noisy_activations_variant();
}

template <class Activation>
struct Problem {
  typedef typename Activation::Real F;
  typedef typename Activation::Bits Bits;

  Problem(const Sizes& sizes, FloatFormat format, double beta, bool channels_last) {
    args.batch = sizes.batch, args.channels = sizes.channels, args.positions = sizes.positions;
    args.window = sizes.window, args.format = format, args.channels_last = channels_last;
    args.alpha = 1.0, args.beta = beta, args.gamma = 2.0, args.clip = 1.0, args.noise_std = 0.5;
    args.first_element = 77, args.attempt = 3;
    for (uint32_t i = 0; i < 8; ++i) args.key[i] = 0x9e3779b9u * (i + 1);
    std::mt19937 random(static_cast<uint32_t>(sizes.channels));
    std::normal_distribution<double> normal;
    const size_t size = static_cast<size_t>(sizes.batch * sizes.channels * sizes.positions);
    for (size_t i = 0; i < size; ++i) {
      // A number that every format holds.
      const double x = std::nearbyint(normal(random) * 32) / 32;
      input.push_back(std::is_same<Activation, Float32Activation>::value ||
                              std::is_same<Activation, Float64Activation>::value
                          ? bits_of(static_cast<F>(x))
                          : Activation::store(static_cast<F>(x)));
      grad.push_back(static_cast<F>(normal(random)));
    }
    for (uint64_t i = 0; i < 4; ++i) entries.push_back((i * 0x1234567800000000u) | (3 - i));
    args.input = input.data();
    args.num_tables = 1, args.tables[0] = {entries.data(), 5, 2}, args.exponent = -6;
  }

  static Bits bits_of(F value) {
    Bits bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
  }

  NoisyActivationsArgs args{};
  std::vector<Bits> input;
  std::vector<F> grad;
  std::vector<uint64_t> entries;
};

// One element at a time; the sums over an example as the library makes them.
template <class Activation, Beta beta>
void plain_forward(const NoisyActivationsArgs& args, const std::vector<ActivationTile>& tiles,
                   std::vector<typename Activation::Bits>& out) {
  typedef typename Activation::Real F;
  const ActivationTerms<F> terms = activation_terms<Activation>(args);
  for (const ActivationTile& tile : tiles) {
    for (int64_t s = tile.begin; s < tile.end; ++s) {
      const auto point = activation_point<Activation>(args, terms, tile.example, s, static_cast<F>(tile.scale));
      for (int64_t c = 0; c < args.channels; ++c) {
        const F y = normalized_at<beta>(point, c);
        const int64_t index = (tile.example * args.channels + c) * args.positions + s;
        const uint64_t element = args.first_element + static_cast<uint64_t>(index);
        auto& to = out[static_cast<size_t>(point.origin + c * point.stride)];
        if (args.noise == ActivationNoise::kGrid) {
          to = store_on_grid<Activation>(static_cast<double>(y), grid_noise(args, element), power_of_two(args.exponent),
                                         power_of_two(-args.exponent));
        } else if (args.noise == ActivationNoise::kFloat) {
          to = Activation::store(y + static_cast<F>(args.noise_std) * static_cast<F>(normal_noise(args, element)));
        } else {
          to = Activation::store(y);
        }
      }
    }
  }
}

template <class Activation, Beta beta>
void plain_backward(const NoisyActivationsArgs& args, const std::vector<ActivationTile>& tiles,
                    std::vector<typename Activation::Real>& out) {
  typedef typename Activation::Real F;
  const ActivationTerms<F> terms = activation_terms<Activation>(args);
  for (const ActivationTile& tile : tiles) {
    for (int64_t s = tile.begin; s < tile.end; ++s) {
      const auto point = activation_point<Activation>(args, terms, tile.example, s, static_cast<F>(tile.scale));
      for (int64_t c = 0; c < args.channels; ++c) {
        out[static_cast<size_t>(point.origin + c * point.stride)] = input_gradient(
            raw_at(point, c), gradient_at<beta>(point, c), point.scale, static_cast<F>(tile.along), terms);
      }
    }
  }
}

template <class Activation, Beta beta>
void check(Problem<Activation>& problem, const char* where) {
  typedef typename Activation::Real F;
  NoisyActivationsArgs& args = problem.args;
  const int64_t count = args.batch * activation_tiles(args);
  for (int i = 0; i < kIsaCount; ++i) {
    if (!isa_supported(static_cast<Isa>(i))) continue;
    const NoisyActivationsVariant variant = variant_of(static_cast<Isa>(i));
    std::vector<double> scratch(static_cast<size_t>(activation_scratch_rows(args) * kActivationRow));
    std::vector<double> squares(static_cast<size_t>(count)), products(static_cast<size_t>(count));
    std::vector<ActivationTile> tiles;
    for (int64_t n = 0; n < count; ++n) tiles.push_back(activation_tile(args, n));
    const bool norm = args.clip_kind == ActivationClip::kNorm;
    for (size_t n = 0; norm && n < tiles.size(); ++n) squares[n] = variant.squares(args, tiles[n], scratch.data());
    for (ActivationTile& tile : tiles) {
      if (norm) set_scale(args, squares.data(), tile);
    }
    std::vector<typename Activation::Bits> expected(problem.input.size()), got(problem.input.size());
    args.grad = nullptr, args.output = got.data();
    plain_forward<Activation, beta>(args, tiles, expected);
    for (const ActivationTile& tile : tiles) {
      expect(variant.forward(args, tile, scratch.data()) < 0, "nothing is refused", where);
    }
    expect(got == expected, isa_name(static_cast<Isa>(i)), where);
    expect(noisy_activations_cpu(args, 3).code == StatusCode::kOk && got == expected, "three threads", where);

    std::vector<F> gradient(problem.input.size()), whole(problem.input.size());
    args.grad = problem.grad.data(), args.output = gradient.data();
    for (size_t n = 0; norm && n < tiles.size(); ++n) products[n] = variant.products(args, tiles[n], scratch.data());
    for (ActivationTile& tile : tiles) {
      if (norm) set_along(args, products.data(), tile);
      variant.backward(args, tile, scratch.data());
    }
    plain_backward<Activation, beta>(args, tiles, whole);
    const size_t bytes = whole.size() * sizeof(F);
    expect(bytes == 0 || std::memcmp(gradient.data(), whole.data(), bytes) == 0, "gradient", where);
    args.output = whole.data();
    expect(noisy_activations_cpu(args, 2).code == StatusCode::kOk, "gradient on two threads", where);
    expect(bytes == 0 || std::memcmp(gradient.data(), whole.data(), bytes) == 0, "the same gradient", where);
  }
}

template <class Activation, Beta beta>
void check_all(FloatFormat format, double exponent) {
  for (const Sizes& sizes : {Sizes{1, 1, 1, 5}, Sizes{3, 7, 1, 0}, Sizes{2, 5, 17, 5}, Sizes{1, 12, 130, 19},
                             Sizes{1, 3, 1025, 2}, Sizes{2, 4, 257, 1}}) {
    for (const bool channels_last : {false, true}) {
      for (int kind = 0; kind < 3; ++kind) {
        Problem<Activation> problem(sizes, format, exponent, channels_last);
        problem.args.clip_kind = static_cast<ActivationClip>(kind);
        problem.args.noise = static_cast<ActivationNoise>((kind + channels_last) % 3);
        problem.args.is_signed = sizes.channels % 2 == 0;
        char where[96];
        std::snprintf(where, sizeof where, "C=%lld S=%lld format=%d beta=%g clip=%d last=%d",
                      static_cast<long long>(sizes.channels), static_cast<long long>(sizes.positions),
                      static_cast<int>(format), exponent, kind, channels_last);
        check<Activation, beta>(problem, where);
      }
    }
  }
}

template <class Activation>
void check_format(FloatFormat format) {
  check_all<Activation, Beta::kHalf>(format, 0.5);
  check_all<Activation, Beta::kThreeQuarters>(format, 0.75);
  check_all<Activation, Beta::kOne>(format, 1.0);
  check_all<Activation, Beta::kGeneral>(format, 0.6);
}

void check_failures() {
  for (const int threads : {1, 2, 3}) {
    Problem<Float32Activation> problem({2, 3, 3000, 5}, FloatFormat::kFloat32, 0.5, false);
    std::vector<uint32_t> out(problem.input.size());
    problem.args.output = out.data();
    problem.input[3001] = to_bits(std::numeric_limits<float>::quiet_NaN());
    problem.input[2999] = to_bits(-std::numeric_limits<float>::infinity());
    problem.input[17999] = to_bits(0x1p41f);
    const Status status = noisy_activations_cpu(problem.args, threads);
    expect(status.code == StatusCode::kNonFinite && status.element == 2999, "the first is named", "check_failures");
  }
}

void check_power() {
  for (int exponent = -41; exponent <= 121; ++exponent) {
    for (const double mantissa : {1.0, 1.2, 1.4142, 1.4143, 1.9999999}) {
      const double d = std::ldexp(mantissa, exponent);
      for (const double beta : {0.001, 0.3, 1.7, 2.0}) {
        expect(std::fabs(power_negative(d, beta) * std::pow(d, beta) - 1.0) < 1e-13, "power_negative", "check_power");
      }
      expect(std::fabs(inverse_root(d) * std::sqrt(d) - 1.0) < 1e-15, "inverse_root", "check_power");
      const double single = static_cast<double>(inverse_root(static_cast<float>(d)));
      expect(std::fabs(single * std::sqrt(static_cast<double>(static_cast<float>(d))) - 1.0) < 0x1p-22, "inverse_root",
             "check_power, float");
    }
  }
}

}  // namespace
}  // namespace privkernels

int main() {
  using namespace privkernels;
  check_format<Float32Activation>(FloatFormat::kFloat32);
  check_format<Float16Activation>(FloatFormat::kFloat16);
  check_format<BFloat16Activation>(FloatFormat::kBFloat16);
  check_format<Float64Activation>(FloatFormat::kFloat64);
  check_power();
  check_failures();
  return verdict();
}
