// Between the entry point of noisy_activations (noisy_activations_entry.cpp) and its variants (noisy_activations.cpp,
// once per instruction set), and the checks and the split into tiles that CPU and CUDA share.
#pragma once

#include "core/activations.h"

namespace privkernels {

// A tile is up to this many positions of one example, with all channels. Sums over an example are made tile by tile, so
// the size is part of the result.
constexpr int64_t kActivationTile = 1024;

// Elements from row to row of a worker's memory. Rows 4096 bytes apart would fall into the same sets of the L1 cache,
// as the rows of a tensor of 32 x 32 positions do.
constexpr int64_t kActivationRow = kActivationTile + 80;

PK_HD int64_t activation_tiles(const NoisyActivationsArgs& args) {
  return (args.positions + kActivationTile - 1) / kActivationTile;
}

struct ActivationTile {
  int64_t example, begin, end;  // positions [begin, end)
  double scale, along;          // as clipped and input_gradient take them
};

PK_HD ActivationTile activation_tile(const NoisyActivationsArgs& args, int64_t number) {
  const int64_t tiles = activation_tiles(args);
  const int64_t begin = number % tiles * kActivationTile;
  const int64_t end = begin + kActivationTile < args.positions ? begin + kActivationTile : args.positions;
  return {number / tiles, begin, end, 1.0, 0.0};
}

// The sum over an example of what its tiles gave.
PK_HD double example_sum(const double* of_tiles, int64_t tiles) {
  double sum = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) sum = sum + of_tiles[tile];
  return sum;
}

PK_HD bool is_double(const NoisyActivationsArgs& args) { return args.format == FloatFormat::kFloat64; }

PK_HD void set_scale(const NoisyActivationsArgs& args, const double* squares, ActivationTile& tile) {
  const int64_t tiles = activation_tiles(args);
  tile.scale = norm_scale(example_sum(squares + tile.example * tiles, tiles), args.clip, is_double(args));
}

// After set_scale.
PK_HD void set_along(const NoisyActivationsArgs& args, const double* products, ActivationTile& tile) {
  const int64_t tiles = activation_tiles(args);
  const double sum = example_sum(products + tile.example * tiles, tiles) / (args.clip * args.clip);
  tile.along = tile.scale < 1.0 ? sum : 0.0;
}

// Rows that a sliding window keeps.
PK_HD int64_t window_rows(const NoisyActivationsArgs& args) {
  const int64_t rows = args.window / 2 < args.channels ? 2 * (args.window / 2) + 1 : args.channels;
  return rows < args.channels ? rows : args.channels;
}

// Rows of kActivationRow doubles that a worker needs: three rings and four rows.
static inline int64_t activation_scratch_rows(const NoisyActivationsArgs& args) { return 3 * window_rows(args) + 4; }

// What each variant has. scratch: activation_scratch_rows * kActivationRow doubles.
struct NoisyActivationsVariant {
  // The output of a tile; returns the first element that is refused, or -1.
  int64_t (*forward)(const NoisyActivationsArgs&, const ActivationTile&, double* scratch);
  void (*backward)(const NoisyActivationsArgs&, const ActivationTile&, double* scratch);
  double (*squares)(const NoisyActivationsArgs&, const ActivationTile&, double* scratch);   // sum of v^2
  double (*products)(const NoisyActivationsArgs&, const ActivationTile&, double* scratch);  // a . gradient
};

namespace base {
NoisyActivationsVariant noisy_activations_variant();
}
namespace avx2 {
NoisyActivationsVariant noisy_activations_variant();
}
namespace avx512 {
NoisyActivationsVariant noisy_activations_variant();
}

static inline Status check_noisy_activations(const NoisyActivationsArgs& args) {
  const auto invalid = [](const char* message) { return Status{StatusCode::kInvalidArgument, -1, -1, message}; };
  const auto within = [](double value, double low, double high) { return value >= low && value <= high; };
  if (args.batch < 0 || args.channels < 0 || args.positions < 0) return invalid("sizes must be 0 or more");
  int64_t size = 0;
  if (__builtin_mul_overflow(args.batch, args.channels, &size) || __builtin_mul_overflow(size, args.positions, &size)) {
    return invalid("more than 2**63 elements");
  }
  if (args.first_element > ~uint64_t{0} - static_cast<uint64_t>(size)) {
    return invalid("first_element + size must be below 2**64");
  }
  if (args.attempt >> 28 != 0) return invalid("attempt must be below 2**28");
  if (args.clip_kind != ActivationClip::kNone && !within(args.clip, 0x1p-40, 0x1p40)) {
    return invalid("clip must be in [2**-40, 2**40]");
  }
  if (args.window < 0) return invalid("window must be 1 or more, or None");
  if (args.window > 0) {
    if (!within(args.gamma, 0x1p-40, 0x1p40)) return invalid("gamma must be in [2**-40, 2**40]");
    if (!within(args.alpha, 0x1p-40, 0x1p20)) return invalid("alpha must be in [2**-40, 2**20]");
    if (!within(args.beta, 0x1p-40, 2.0)) return invalid("beta must be above 0 and at most 2");
    if (args.channels > int64_t{1} << 20) return invalid("normalisation is over 2**20 channels at most");
  }
  if (args.noise == ActivationNoise::kFloat && !within(args.noise_std, 0.0, 0x1p40)) {
    return invalid("noise_std must be in [0, 2**40]");
  }
  if (args.noise != ActivationNoise::kGrid) return {};
  if (args.exponent < -100 || args.exponent > 100) return invalid("granularity must be in [2**-100, 2**100]");
  return check_noise_tables(args.tables, args.num_tables);
}

}  // namespace privkernels
