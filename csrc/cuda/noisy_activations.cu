// noisy_activations on CUDA: the launch. The arithmetic is core/'s and gives the CPU's bits (built with -fmad=false).
//
// Where noise is drawn a thread computes one block of random bits and serves the elements that read it; its neighbours
// serve the neighbouring ones. Windows are summed afresh for every element, from the caches.
#include "core/activations.h"
#include "cpu/noisy_activations_variant.h"
#include "cuda/launch.h"

namespace privkernels {
namespace {

constexpr int kThreads = 128;

// workspace: sums of squares of all tiles, then of products, then the scale and `along` of every example.
struct Workspace {
  double *squares, *products, *scale, *along;
};

Workspace workspace_of(const NoisyActivationsArgs& args, double* memory) {
  const int64_t tiles = args.batch * activation_tiles(args);
  return {memory, memory + tiles, memory + 2 * tiles, memory + 2 * tiles + args.batch};
}

// The point of element i in the order [b][c][s], and its channel.
template <class Activation>
__device__ ActivationPoint<Activation> point_of(const NoisyActivationsArgs& args,
                                                const ActivationTerms<typename Activation::Real>& terms, int64_t i,
                                                const double* scale, int64_t* channel, int64_t* example) {
  const int64_t row = i / args.positions;
  *channel = row % args.channels;
  *example = row / args.channels;
  const double factor = args.clip_kind == ActivationClip::kNorm ? scale[*example] : 1.0;
  return activation_point<Activation>(args, terms, *example, i % args.positions,
                                      static_cast<typename Activation::Real>(factor));
}

// One element; `noise` is K, or the float noise.
template <class Activation, Beta beta>
__device__ void forward_element(const NoisyActivationsArgs& args, const Workspace& work, int64_t i, int64_t steps,
                                float normal, unsigned long long* failure) {
  typedef typename Activation::Real F;
  const ActivationTerms<F> terms = activation_terms<Activation>(args);
  int64_t channel, example;
  const ActivationPoint<Activation> point = point_of<Activation>(args, terms, i, work.scale, &channel, &example);
  const F x = raw_at(point, channel);
  // -1 is the largest unsigned number, so the minimum is the first failing element.
  if (!(x >= -terms.largest && x <= terms.largest)) atomicMin(failure, static_cast<unsigned long long>(i));
  const F y = normalized_at<beta>(point, channel);
  typename Activation::Bits* out = static_cast<typename Activation::Bits*>(args.output) + point.origin;
  if (args.noise == ActivationNoise::kGrid) {
    out[channel * point.stride] = store_on_grid<Activation>(static_cast<double>(y), steps, power_of_two(args.exponent),
                                                            power_of_two(-args.exponent));
  } else if (args.noise == ActivationNoise::kFloat) {
    out[channel * point.stride] = Activation::store(y + static_cast<F>(args.noise_std) * static_cast<F>(normal));
  } else {
    out[channel * point.stride] = Activation::store(y);
  }
}

// A thread per block of random bits: 8 elements of grid noise, 16 of float noise.
template <class Activation, Beta beta>
__global__ void forward_kernel(const NoisyActivationsArgs args, const Workspace work, uint64_t first_block,
                               int64_t blocks, int64_t size, unsigned long long* failure) {
  const bool grid = args.noise == ActivationNoise::kGrid;
  const int served = grid ? 8 : 16;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; at < blocks; at += stride) {
    const uint64_t block = first_block + static_cast<uint64_t>(at);
    const uint64_t element =
        block / kSpreadBlocks * static_cast<uint64_t>(served * kSpreadBlocks) + block % kSpreadBlocks;
    uint32_t words[16];
    int64_t steps[8] = {};
    for (int t = 0; grid && t < args.num_tables; ++t) {
      addressed_block(args.key, block, args.attempt * kDrawsOfAttempt + t, kPurposeNoisyActivations, words);
      for (int w = 0; w < 8; ++w) {
        steps[w] = add_table<NoiseDistribution::kGaussian>(steps[w], block_bits(words, w), args.tables[t],
                                                           t == args.num_tables - 1);
      }
    }
    if (args.noise == ActivationNoise::kFloat) {
      addressed_block(args.key, block, args.attempt * kDrawsOfAttempt + kFloatDraw, kPurposeNoisyActivations, words);
    }
    for (int w = 0; w < served; ++w) {
      // Below zero for the elements of the first group that lie before the call's first one.
      const int64_t i = static_cast<int64_t>(element + static_cast<uint64_t>(w * kSpreadBlocks) - args.first_element);
      if (i < 0 || i >= size) continue;
      const float normal = args.noise == ActivationNoise::kFloat ? normal_of_bits(words[w]) : 0.0f;
      forward_element<Activation, beta>(args, work, i, grid ? steps[w] : 0, normal, failure);
    }
  }
}

template <class Activation, Beta beta>
__global__ void backward_kernel(const NoisyActivationsArgs args, const Workspace work, int64_t size) {
  typedef typename Activation::Real F;
  const ActivationTerms<F> terms = activation_terms<Activation>(args);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < size; i += stride) {
    int64_t channel, example;
    const ActivationPoint<Activation> point = point_of<Activation>(args, terms, i, work.scale, &channel, &example);
    const F along = args.clip_kind == ActivationClip::kNorm ? static_cast<F>(work.along[example]) : F(0);
    const F gradient = gradient_at<beta>(point, channel);
    F* out = static_cast<F*>(args.output) + point.origin;
    out[channel * point.stride] = input_gradient(raw_at(point, channel), gradient, point.scale, along, terms);
  }
}

// A block per tile: each thread sums the channels of its position, and the block folds the positions.
template <class Activation, Beta beta, bool products>
__global__ void sum_kernel(const NoisyActivationsArgs args, const Workspace work, int64_t tiles) {
  typedef typename Activation::Real F;
  __shared__ double sums[kActivationTile];
  const ActivationTerms<F> terms = activation_terms<Activation>(args);
  for (int64_t number = blockIdx.x; number < tiles; number += gridDim.x) {
    const ActivationTile tile = activation_tile(args, number);
    const int64_t position = tile.begin + threadIdx.x;
    double sum = 0;
    if (position < tile.end) {
      const F scale = products ? static_cast<F>(work.scale[tile.example]) : F(1);
      const ActivationPoint<Activation> point =
          activation_point<Activation>(args, terms, tile.example, position, scale);
      for (int64_t channel = 0; channel < args.channels; ++channel) {
        const double a = static_cast<double>(clipped_at(point, channel));
        sum = sum + a * (products ? static_cast<double>(gradient_at<beta>(point, channel)) : a);
      }
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int width = static_cast<int>(kActivationTile) / 2; width > 0; width /= 2) {
      if (static_cast<int>(threadIdx.x) < width) sums[threadIdx.x] = sums[threadIdx.x] + sums[threadIdx.x + width];
      __syncthreads();
    }
    if (threadIdx.x == 0) (products ? work.products : work.squares)[number] = sums[0];
    __syncthreads();
  }
}

__global__ void example_kernel(const NoisyActivationsArgs args, const Workspace work, bool products) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t b = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; b < args.batch; b += stride) {
    ActivationTile tile{b, 0, 0, work.scale[b], 0.0};
    if (products) {
      set_along(args, work.products, tile);
      work.along[b] = tile.along;
    } else {
      set_scale(args, work.squares, tile);
      work.scale[b] = tile.scale;
    }
  }
}

template <class Activation, Beta beta>
void launch(const NoisyActivationsArgs& args, const Workspace& work, int processors, int64_t* failure,
            cudaStream_t stream) {
  const int64_t size = args.batch * args.channels * args.positions, tiles = args.batch * activation_tiles(args);
  const auto grid = [&](int64_t needed) {
    const int64_t most = processors * int64_t{16};
    return static_cast<unsigned>(needed < most ? needed : most);
  };
  const unsigned examples = grid((args.batch + kThreads - 1) / kThreads);
  const unsigned threads = static_cast<unsigned>(kActivationTile);
  if (args.clip_kind == ActivationClip::kNorm) {
    sum_kernel<Activation, beta, false><<<grid(tiles), threads, 0, stream>>>(args, work, tiles);
    example_kernel<<<examples, kThreads, 0, stream>>>(args, work, false);
    if (args.grad != nullptr) {
      sum_kernel<Activation, beta, true><<<grid(tiles), threads, 0, stream>>>(args, work, tiles);
      example_kernel<<<examples, kThreads, 0, stream>>>(args, work, true);
    }
  }
  if (args.grad != nullptr) {
    backward_kernel<Activation, beta>
        <<<grid((size + kThreads - 1) / kThreads), kThreads, 0, stream>>>(args, work, size);
    return;
  }
  const uint64_t group = args.noise == ActivationNoise::kGrid ? kSpreadGroup : kHalfSpreadGroup;
  const uint64_t first = args.first_element / group * kSpreadBlocks;
  const uint64_t last = (args.first_element + static_cast<uint64_t>(size) - 1) / group;
  const int64_t blocks = static_cast<int64_t>((last + 1) * kSpreadBlocks - first);
  forward_kernel<Activation, beta><<<grid((blocks + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
      args, work, first, blocks, size, reinterpret_cast<unsigned long long*>(failure));
}

template <class Activation>
void launch_beta(const NoisyActivationsArgs& args, const Workspace& work, int processors, int64_t* failure,
                 cudaStream_t stream) {
  switch (beta_kind(args.beta)) {
    case Beta::kHalf: return launch<Activation, Beta::kHalf>(args, work, processors, failure, stream);
    case Beta::kThreeQuarters: return launch<Activation, Beta::kThreeQuarters>(args, work, processors, failure, stream);
    case Beta::kOne: return launch<Activation, Beta::kOne>(args, work, processors, failure, stream);
    default: return launch<Activation, Beta::kGeneral>(args, work, processors, failure, stream);
  }
}

}  // namespace

int64_t noisy_activations_cuda_workspace(const NoisyActivationsArgs& args) {
  return 2 * args.batch * (activation_tiles(args) + 1);
}

Status noisy_activations_cuda(const NoisyActivationsArgs& args, double* workspace, int64_t* failure, int device,
                              void* stream) {
  if (const Status status = check_noisy_activations(args); status.code != StatusCode::kOk) return status;
  if (args.batch == 0 || args.channels == 0 || args.positions == 0) return {};
  return launch_on(device, [&](int processors) {
    const Workspace work = workspace_of(args, workspace);
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    switch (args.format) {
      case FloatFormat::kFloat16: return launch_beta<Float16Activation>(args, work, processors, failure, on);
      case FloatFormat::kBFloat16: return launch_beta<BFloat16Activation>(args, work, processors, failure, on);
      case FloatFormat::kFloat64: return launch_beta<Float64Activation>(args, work, processors, failure, on);
      default: return launch_beta<Float32Activation>(args, work, processors, failure, on);
    }
  });
}

}  // namespace privkernels
