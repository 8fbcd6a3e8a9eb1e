// mask_sum on CUDA: the launch. A thread takes one block of key stream and sums it over a part of the seeds; where the
// vector is too short to fill the device, several parts add to the same elements, which is exact in any order.
#include "core/chacha20.h"
#include "cpu/mask_sum_variant.h"
#include "cuda/launch.h"

namespace privkernels {
namespace {

constexpr int kThreads = 128;

template <class Word>
__global__ void mask_sum_kernel(const MaskSumArgs args, uint64_t first_block, int64_t blocks, int64_t part) {
  constexpr int kWords = 64 / sizeof(Word);
  const int64_t begin = blockIdx.y * part;
  const int64_t end = begin + part < args.num_seeds ? begin + part : args.num_seeds;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; at < blocks; at += stride) {
    const uint64_t block = first_block + static_cast<uint64_t>(at);
    Word sums[kWords] = {};
    for (int64_t seed = begin; seed < end; ++seed) {
      uint32_t key[8], words[16];
      for (int i = 0; i < 8; ++i) key[i] = reinterpret_cast<const uint32_t*>(args.seeds)[8 * seed + i];
      addressed_block(key, block, args.round, kPurposeMaskSum, words);
      const Word sign = static_cast<Word>(static_cast<int64_t>(args.signs[seed]));
#pragma unroll
      for (int w = 0; w < kWords; ++w) {
        sums[w] += sign * static_cast<Word>(sizeof(Word) == 8 ? block_bits(words, w % 8) : words[w]);
      }
    }
    const uint64_t element = block * kWords;
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      // Below zero for the words of the first block that lie before the call's first element.
      const int64_t i = static_cast<int64_t>(element + static_cast<uint64_t>(w) - args.first_element);
      if (i < 0 || i >= args.num_elements) continue;
      Word* value = static_cast<Word*>(args.values) + i;
      if (gridDim.y == 1) {
        *value += sums[w];
      } else {
        atomicAdd(value, sums[w]);
      }
    }
  }
}

template <class Word>
void launch(const MaskSumArgs& args, int processors, cudaStream_t stream) {
  constexpr uint64_t kWords = 64 / sizeof(Word);
  const uint64_t first = args.first_element / kWords;
  const uint64_t last = (args.first_element + static_cast<uint64_t>(args.num_elements) - 1) / kWords;
  const int64_t blocks = static_cast<int64_t>(last + 1 - first);
  const int64_t needed = (blocks + kThreads - 1) / kThreads;
  const int64_t most = processors * int64_t{16};
  const int64_t wide = needed < most ? needed : most;
  int64_t parts = most / wide < args.num_seeds ? most / wide : args.num_seeds;
  if (parts > 65535) parts = 65535;  // the largest gridDim.y
  const int64_t part = (args.num_seeds + parts - 1) / parts;
  const dim3 grid(static_cast<unsigned>(wide), static_cast<unsigned>((args.num_seeds + part - 1) / part));
  mask_sum_kernel<Word><<<grid, kThreads, 0, stream>>>(args, first, blocks, part);
}

}  // namespace

Status mask_sum_cuda(const MaskSumArgs& args, int device, void* stream) {
  if (const Status status = check_mask_sum(args); status.code != StatusCode::kOk) return status;
  if (args.num_elements == 0 || args.num_seeds == 0) return {};
  return launch_on(device, [&](int processors) {
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    if (args.wide) {
      launch<unsigned long long>(args, processors, on);
    } else {
      launch<unsigned>(args, processors, on);
    }
  });
}

}  // namespace privkernels
