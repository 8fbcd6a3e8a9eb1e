// noise_add on CUDA: the launch. The arithmetic is core/'s and gives the CPU's bits (built with -fmad=false).
//
// A thread computes one block of random bits for each table and serves the eight elements that read it; 16
// neighbouring threads serve a group of 128 elements and read and write 16 neighbouring elements at a time.
#include "core/chacha20.h"
#include "core/noise.h"
#include "cpu/noise_add_variant.h"
#include "cuda/launch.h"

namespace privkernels {
namespace {

constexpr int kThreads = 128;

template <NoiseDistribution distribution, class Format>
__global__ void noise_add_kernel(const NoiseAddArgs args, uint64_t first_block, int64_t blocks,
                                 unsigned long long* failure) {
  typedef typename Format::Bits Bits;
  const double granularity = power_of_two(args.exponent), inverse = power_of_two(-args.exponent);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; at < blocks; at += stride) {
    const uint64_t block = first_block + static_cast<uint64_t>(at);
    int64_t noise[8] = {};
    for (int t = 0; t < args.num_tables; ++t) {
      uint32_t words[16];
      addressed_block(args.key, block, static_cast<uint32_t>(t), kPurposeNoiseAdd, words);
#pragma unroll
      for (int w = 0; w < 8; ++w) {
        noise[w] = add_table<distribution>(noise[w], block_bits(words, w), args.tables[t], t == args.num_tables - 1);
      }
    }
    const uint64_t element = block / kSpreadBlocks * kSpreadGroup + block % kSpreadBlocks;
#pragma unroll
    for (int w = 0; w < 8; ++w) {
      // Below zero for the elements of the first group that lie before the call's first one.
      const int64_t i = static_cast<int64_t>(element + static_cast<uint64_t>(w * kSpreadBlocks) - args.first_element);
      if (i < 0 || i >= args.num_elements) continue;
      if (args.steps) args.steps[i] = noise[w];
      if (!args.input) continue;
      const Bits bits = static_cast<const Bits*>(args.input)[i];
      // -1 is the largest unsigned number, so the minimum is the first failing element.
      if (!Format::finite(bits)) atomicMin(failure, static_cast<unsigned long long>(i));
      static_cast<Bits*>(args.output)[i] = add_noise<Format>(bits, noise[w], granularity, inverse);
    }
  }
}

template <NoiseDistribution distribution, class Format>
void launch(const NoiseAddArgs& args, int processors, int64_t* failure, cudaStream_t stream) {
  const uint64_t first = args.first_element / kSpreadGroup * kSpreadBlocks;
  const uint64_t last = (args.first_element + static_cast<uint64_t>(args.num_elements) - 1) / kSpreadGroup;
  const int64_t blocks = static_cast<int64_t>((last + 1) * kSpreadBlocks - first);
  const int64_t needed = (blocks + kThreads - 1) / kThreads;
  const int64_t most = processors * int64_t{16};
  noise_add_kernel<distribution, Format><<<static_cast<unsigned>(needed < most ? needed : most), kThreads, 0, stream>>>(
      args, first, blocks, reinterpret_cast<unsigned long long*>(failure));
}

template <NoiseDistribution distribution>
void launch_format(const NoiseAddArgs& args, int processors, int64_t* failure, cudaStream_t stream) {
  switch (args.format) {
    case FloatFormat::kFloat16: return launch<distribution, Float16Format>(args, processors, failure, stream);
    case FloatFormat::kBFloat16: return launch<distribution, BFloat16Format>(args, processors, failure, stream);
    default: return launch<distribution, Float32Format>(args, processors, failure, stream);
  }
}

}  // namespace

Status noise_add_cuda(const NoiseAddArgs& args, int64_t* failure, int device, void* stream) {
  if (const Status status = check_noise_add(args); status.code != StatusCode::kOk) return status;
  if (args.num_elements == 0) return {};
  return launch_on(device, [&](int processors) {
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    if (args.distribution == NoiseDistribution::kGaussian) {
      launch_format<NoiseDistribution::kGaussian>(args, processors, failure, on);
    } else {
      launch_format<NoiseDistribution::kLaplace>(args, processors, failure, on);
    }
  });
}

}  // namespace privkernels
