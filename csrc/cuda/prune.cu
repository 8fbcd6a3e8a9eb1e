// prune on CUDA. prune_mask is a radix selection: each pass histograms the next bits of the keys that agree with what
// is known of the threshold, one block picks the bin, and after the last pass the threshold is known to the bit. Then
// ties are counted for each chunk, their places summed up in order, and the output is written. All state is on the
// device.
#include "core/prune.h"
#include "cpu/prune_variant.h"
#include "cuda/launch.h"

namespace privkernels {
namespace {

constexpr int kThreads = 256;
constexpr int kEach = 8;                     // neighbouring entries to a thread: one byte of bits
constexpr int64_t kTile = kThreads * kEach;  // entries to a block
constexpr int kRadixBits = 11, kBins = 1 << kRadixBits;

struct SelectState {
  unsigned long long prefix;  // bits of the threshold key above `shift`
  long long rank;             // of the threshold among the keys that agree with it, from 1
  long long failed;           // nonzero where a segment holds NaN
  long long padding;
};

// What a launch over one segment needs to know.
struct Slice {
  const void* scores;
  int64_t stride;
  int64_t size;
  void* output;
  uint64_t infinity;
  int64_t first_tile;  // number of its first tile among all tiles
};

int64_t tiles_of(int64_t size) { return (size + kTile - 1) / kTile; }

unsigned blocks_for(int64_t tiles, int processors) {
  const int64_t most = processors * int64_t{8};
  return static_cast<unsigned>(tiles < most ? tiles : most);
}

__global__ void start_kernel(SelectState* state, unsigned long long* histogram, int64_t keep) {
  for (int bin = static_cast<int>(threadIdx.x); bin < kBins; bin += kThreads) histogram[bin] = 0;
  if (threadIdx.x == 0) *state = {0, keep, 0, 0};
}

// Counts keys whose bits from shift + bits on are the prefix, by their `bits` bits from shift on. NaN is looked for in
// the first pass.
template <bool magnitude, class Bits>
__global__ void histogram_kernel(const Slice slice, const SelectState* state, int shift, int bits, bool first,
                                 unsigned long long* histogram, unsigned long long* failure) {
  __shared__ unsigned counts[kBins];  // a block sees less than 2^32 entries: the loop below flushes in time
  for (int bin = static_cast<int>(threadIdx.x); bin < kBins; bin += kThreads) counts[bin] = 0;
  __syncthreads();
  const uint64_t prefix = state->prefix, mask = (uint64_t{1} << bits) - 1;
  const Bits* scores = static_cast<const Bits*>(slice.scores);
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  int64_t left = int64_t{1} << 23;  // iterations until a flush, times kThreads entries below 2^32
  for (int64_t base = static_cast<int64_t>(blockIdx.x) * kThreads; base < slice.size; base += step) {
    const int64_t i = base + threadIdx.x;
    if (i < slice.size) {
      const Bits raw = scores[i * slice.stride];
      // -1 is the largest unsigned number, so the minimum is the lowest failing entry.
      if (first && magnitude_bits(raw) > slice.infinity) atomicMin(failure, static_cast<unsigned long long>(i));
      const uint64_t key = order_key<magnitude>(raw);
      // Shifted twice: by the whole width in the first pass.
      if (first || ((key >> shift) >> bits) == prefix) atomicAdd(&counts[(key >> shift) & mask], 1u);
    }
    if (--left == 0) {
      __syncthreads();
      for (int bin = static_cast<int>(threadIdx.x); bin < kBins; bin += kThreads) {
        if (counts[bin] != 0) atomicAdd(&histogram[bin], static_cast<unsigned long long>(counts[bin]));
        counts[bin] = 0;
      }
      __syncthreads();
      left = int64_t{1} << 23;
    }
  }
  __syncthreads();
  for (int bin = static_cast<int>(threadIdx.x); bin < kBins; bin += kThreads) {
    if (counts[bin] != 0) atomicAdd(&histogram[bin], static_cast<unsigned long long>(counts[bin]));
  }
}

// One block: finds the bin of the rank-th largest, appends its number to the prefix, and clears the histogram.
__global__ void pick_kernel(SelectState* state, unsigned long long* histogram, int bits) {
  if (threadIdx.x == 0 && state->rank > 0) {
    long long rank = state->rank;
    int bin = kBins - 1;
    for (; bin > 0 && rank > static_cast<long long>(histogram[bin]); --bin) {
      rank -= static_cast<long long>(histogram[bin]);
    }
    state->prefix = (state->prefix << bits) | static_cast<unsigned long long>(bin);
    state->rank = rank;
  }
  __syncthreads();
  for (int bin = static_cast<int>(threadIdx.x); bin < kBins; bin += kThreads) histogram[bin] = 0;
}

// One block, after the last pass: the threshold as a number, and whether anything failed.
template <class Bits>
__global__ void settle_kernel(SelectState* state, bool magnitude, int64_t keep, uint64_t limit, Bits* threshold,
                              const unsigned long long* failure, int64_t segments) {
  for (int64_t s = threadIdx.x; s < segments; s += kThreads) {
    if (failure[s] != ~0ull) state->failed = 1;  // every writer writes the same
  }
  if (threadIdx.x != 0) return;
  if (keep == 0) state->prefix = limit;  // above every key, and its ties are none
  if (threshold != nullptr) {
    *threshold = bits_of_key<Bits>(magnitude, static_cast<Bits>(keep == 0 ? limit - 1 : state->prefix));
  }
}

// The sum of `value` over the threads before this one, and over all; every thread of the block calls it.
__device__ int sum_before(int value, int* total) {
  __shared__ int warps[kThreads / 32];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  int sum = value;
  for (int offset = 1; offset < 32; offset *= 2) {
    const int below = __shfl_up_sync(0xffffffffu, sum, offset);
    if (lane >= offset) sum += below;
  }
  if (lane == 31) warps[warp] = sum;
  __syncthreads();
  int before = 0, all = 0;
  for (int w = 0; w < kThreads / 32; ++w) {
    if (w < warp) before += warps[w];
    all += warps[w];
  }
  __syncthreads();
  *total = all;
  return before + sum - value;
}

template <bool magnitude, class Bits>
__device__ int ties_of(const Slice& slice, int64_t at, Bits key, Bits* raw) {
  int ties = 0;
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    const bool there = at + e < slice.size;
    raw[e] = there ? static_cast<const Bits*>(slice.scores)[(at + e) * slice.stride] : Bits{0};
    ties += there && order_key<magnitude>(raw[e]) == key;
  }
  return ties;
}

template <bool magnitude, class Bits>
__global__ void ties_kernel(const Slice slice, const SelectState* state, long long* tile_ties) {
  const Bits key = static_cast<Bits>(state->prefix);
  for (int64_t tile = blockIdx.x; tile * kTile < slice.size; tile += gridDim.x) {
    Bits raw[kEach];
    int total = 0;
    sum_before(ties_of<magnitude>(slice, tile * kTile + threadIdx.x * kEach, key, raw), &total);
    if (threadIdx.x == 0) tile_ties[slice.first_tile + tile] = total;
  }
}

// One block: replaces the ties of each tile by those of the tiles before it.
__global__ void before_kernel(long long* tile_ties, int64_t tiles) {
  __shared__ long long shared[kThreads];
  long long carried = 0;
  for (int64_t first = 0; first < tiles; first += kThreads) {
    const int64_t tile = first + threadIdx.x;
    const long long own = tile < tiles ? tile_ties[tile] : 0;
    shared[threadIdx.x] = own;
    __syncthreads();
    for (unsigned offset = 1; offset < kThreads; offset *= 2) {
      const long long below = threadIdx.x >= offset ? shared[threadIdx.x - offset] : 0;
      __syncthreads();
      shared[threadIdx.x] += below;
      __syncthreads();
    }
    if (tile < tiles) tile_ties[tile] = carried + shared[threadIdx.x] - own;
    carried += shared[kThreads - 1];
    __syncthreads();
  }
}

template <bool magnitude, class Bits>
__global__ void output_kernel(const Slice slice, const SelectState* state, const long long* ties_before,
                              PruneOutput output) {
  if (output == PruneOutput::kInPlace && state->failed != 0) return;
  const Bits key = static_cast<Bits>(state->prefix);
  for (int64_t tile = blockIdx.x; tile * kTile < slice.size; tile += gridDim.x) {
    Bits raw[kEach];
    const int64_t at = tile * kTile + threadIdx.x * kEach;
    const int ties = ties_of<magnitude>(slice, at, key, raw);
    int total = 0;
    const long long before = ties_before[slice.first_tile + tile] + sum_before(ties, &total);
    long long left = state->rank - before;  // ties that may still be kept
    unsigned kept = 0;
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
      const Bits own = order_key<magnitude>(raw[e]);
      const bool tie = own == key && at + e < slice.size;
      if (own > key || (tie && left > 0)) kept |= 1u << e;
      left -= tie;
    }
    if (at >= slice.size) continue;
    const int count = static_cast<int>(slice.size - at < kEach ? slice.size - at : kEach);
    if (output == PruneOutput::kBits) {
      static_cast<uint8_t*>(slice.output)[at / 8] = static_cast<uint8_t>(kept & ((1u << count) - 1));
    } else if (output == PruneOutput::kBools) {
      for (int e = 0; e < count; ++e) static_cast<uint8_t*>(slice.output)[at + e] = (kept >> e) & 1u;
    } else {
      for (int e = 0; e < count; ++e) {
        static_cast<Bits*>(slice.output)[at + e] = (kept >> e) & 1u ? raw[e] : Bits{0};
      }
    }
  }
}

// Calls body(slice, segment) for the segments that are not empty.
template <class Body>
void each_slice(const PruneMaskArgs& args, const Body& body) {
  int64_t first_tile = 0;
  for (int64_t s = 0; s < args.num_segments; ++s) {
    const PruneSegment& segment = args.segments[s];
    if (segment.size == 0) continue;
    body(Slice{segment.scores, segment.stride, segment.size, segment.output, infinity_of(args.format), first_tile}, s);
    first_tile += tiles_of(segment.size);
  }
}

template <bool magnitude, class Bits>
void launch_mask(const PruneMaskArgs& args, void* workspace, unsigned long long* failure, int processors,
                 cudaStream_t on) {
  SelectState* state = static_cast<SelectState*>(workspace);
  unsigned long long* histogram = reinterpret_cast<unsigned long long*>(state + 1);
  long long* tile_ties = reinterpret_cast<long long*>(histogram + kBins);
  start_kernel<<<1, kThreads, 0, on>>>(state, histogram, args.keep);
  constexpr int kWidth = 8 * static_cast<int>(sizeof(Bits));
  for (int known = 0; known < kWidth;) {
    const int bits = kWidth - known < kRadixBits ? kWidth - known : kRadixBits, shift = kWidth - known - bits;
    each_slice(args, [&](const Slice& slice, int64_t s) {
      histogram_kernel<magnitude, Bits><<<blocks_for(tiles_of(slice.size), processors), kThreads, 0, on>>>(
          slice, state, shift, bits, known == 0, histogram, failure + s);
    });
    pick_kernel<<<1, kThreads, 0, on>>>(state, histogram, bits);
    known += bits;
  }
  settle_kernel<Bits><<<1, kThreads, 0, on>>>(state, args.magnitude, args.keep,
                                              prune_key_limit(args.format, args.magnitude),
                                              static_cast<Bits*>(args.threshold), failure, args.num_segments);
  int64_t tiles = 0;
  each_slice(args, [&](const Slice& slice, int64_t) {
    ties_kernel<magnitude, Bits>
        <<<blocks_for(tiles_of(slice.size), processors), kThreads, 0, on>>>(slice, state, tile_ties);
    tiles += tiles_of(slice.size);
  });
  before_kernel<<<1, kThreads, 0, on>>>(tile_ties, tiles);
  each_slice(args, [&](const Slice& slice, int64_t) {
    output_kernel<magnitude, Bits>
        <<<blocks_for(tiles_of(slice.size), processors), kThreads, 0, on>>>(slice, state, tile_ties, args.output);
  });
}

template <class Bits>
void launch_mask_of(const PruneMaskArgs& args, void* workspace, unsigned long long* failure, int processors,
                    cudaStream_t on) {
  if (args.magnitude) {
    launch_mask<true, Bits>(args, workspace, failure, processors, on);
  } else {
    launch_mask<false, Bits>(args, workspace, failure, processors, on);
  }
}

// A thread takes a group of one column.
template <class Bits>
__global__ void pattern_kernel(const PrunePatternArgs args, unsigned long long* failure) {
  const int64_t groups = (args.length + args.m - 1) / args.m, columns = args.outer * groups * args.inner;
  const Bits* scores = static_cast<const Bits*>(args.scores);
  const uint64_t infinity = infinity_of(args.format);
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t c = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; c < columns; c += step) {
    const int64_t inner = c % args.inner, group = c / args.inner % groups, outer = c / args.inner / groups;
    const int64_t at = (outer * args.length + group * args.m) * args.inner + inner;
    const int64_t rest = args.length - group * args.m, size = rest < args.m ? rest : args.m;
    for (int64_t i = 0; i < size; ++i) {
      const Bits own = magnitude_bits(scores[at + i * args.inner]);
      if (own > infinity) atomicMin(failure, static_cast<unsigned long long>(at + i * args.inner));
      int64_t before = 0;
      for (int64_t j = 0; j < size; ++j) {
        const Bits other = magnitude_bits(scores[at + j * args.inner]);
        before += other > own || (other == own && j < i);
      }
      args.mask[at + i * args.inner] = before < args.n;
    }
  }
}

// A thread computes one block of random bits and serves the eight elements that read it, 16 apart.
template <class Format>
__global__ void random_kernel(const PruneRandomArgs args, uint64_t first_block, int64_t blocks,
                              unsigned long long* failure) {
  typedef typename Format::Bits Bits;
  const double low = args.low, high = args.high, width = high - low;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; at < blocks; at += step) {
    const uint64_t block = first_block + static_cast<uint64_t>(at);
    uint32_t words[16];
    addressed_block(args.key, block, 0, kPurposePrune, words);
    const uint64_t element = block / kSpreadBlocks * kSpreadGroup + block % kSpreadBlocks;
#pragma unroll
    for (int w = 0; w < 8; ++w) {
      // Below zero for the elements of the first group that lie before the call's first one.
      const int64_t i = static_cast<int64_t>(element + static_cast<uint64_t>(w * kSpreadBlocks) - args.first_element);
      if (i < 0 || i >= args.size) continue;
      const double importance = Format::decode(static_cast<const Bits*>(args.importance)[i * args.stride]);
      if (!within(importance, low, high)) atomicMin(failure, static_cast<unsigned long long>(i));
      args.mask[i] = kept_at_random(importance, low, width, block_bits(words, w));
    }
  }
}

template <class Format>
void launch_random(const PruneRandomArgs& args, int processors, unsigned long long* failure, cudaStream_t on) {
  const uint64_t first = args.first_element / kSpreadGroup * kSpreadBlocks;
  const uint64_t last = (args.first_element + static_cast<uint64_t>(args.size) - 1) / kSpreadGroup;
  const int64_t blocks = static_cast<int64_t>((last + 1) * kSpreadBlocks - first);
  const unsigned grid = blocks_for((blocks + kThreads - 1) / kThreads, processors);
  random_kernel<Format><<<grid, kThreads, 0, on>>>(args, first, blocks, failure);
}

template <class Bits>
__global__ void apply_kernel(const PruneApplyArgs args) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < args.size; i += step) {
    const unsigned kept = args.bits ? (args.mask[i / 8] >> (i % 8)) & 1u : args.mask[i];
    if (kept == 0) static_cast<Bits*>(args.values)[i] = Bits{0};
  }
}

}  // namespace

int64_t prune_mask_workspace(const PruneMaskArgs& args) {
  int64_t tiles = 0;
  for (int64_t s = 0; s < args.num_segments; ++s) tiles += tiles_of(args.segments[s].size);
  return static_cast<int64_t>(sizeof(SelectState)) + 8 * (kBins + tiles);
}

Status prune_mask_cuda(const PruneMaskArgs& args, void* workspace, int64_t* failure, int device, void* stream) {
  if (const Status status = check_prune_mask(args); status.code != StatusCode::kOk) return status;
  return launch_on(device, [&](int processors) {
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    unsigned long long* failed = reinterpret_cast<unsigned long long*>(failure);
    switch (prune_element_bytes(args.format)) {
      case 8: return launch_mask_of<uint64_t>(args, workspace, failed, processors, on);
      case 4: return launch_mask_of<uint32_t>(args, workspace, failed, processors, on);
      default: return launch_mask_of<uint16_t>(args, workspace, failed, processors, on);
    }
  });
}

Status prune_pattern_cuda(const PrunePatternArgs& args, int64_t* failure, int device, void* stream) {
  if (const Status status = check_prune_pattern(args); status.code != StatusCode::kOk) return status;
  const int64_t columns = (args.length + args.m - 1) / args.m * args.outer * args.inner;  // 0 first: no overflow
  if (columns == 0) return {};
  return launch_on(device, [&](int processors) {
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    unsigned long long* failed = reinterpret_cast<unsigned long long*>(failure);
    const unsigned grid = blocks_for((columns + kThreads - 1) / kThreads, processors);
    switch (prune_element_bytes(args.format)) {
      case 8: pattern_kernel<uint64_t><<<grid, kThreads, 0, on>>>(args, failed); break;
      case 4: pattern_kernel<uint32_t><<<grid, kThreads, 0, on>>>(args, failed); break;
      default: pattern_kernel<uint16_t><<<grid, kThreads, 0, on>>>(args, failed); break;
    }
  });
}

Status prune_random_cuda(const PruneRandomArgs& args, int64_t* failure, int device, void* stream) {
  if (const Status status = check_prune_random(args); status.code != StatusCode::kOk) return status;
  if (args.size == 0) return {};
  return launch_on(device, [&](int processors) {
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    unsigned long long* failed = reinterpret_cast<unsigned long long*>(failure);
    switch (args.format) {
      case FloatFormat::kFloat16: return launch_random<PruneFloat16>(args, processors, failed, on);
      case FloatFormat::kBFloat16: return launch_random<PruneBFloat16>(args, processors, failed, on);
      case FloatFormat::kFloat64: return launch_random<PruneFloat64>(args, processors, failed, on);
      default: return launch_random<PruneFloat32>(args, processors, failed, on);
    }
  });
}

Status prune_apply_cuda(const PruneApplyArgs& args, int device, void* stream) {
  if (const Status status = check_prune_apply(args); status.code != StatusCode::kOk) return status;
  if (args.size == 0) return {};
  return launch_on(device, [&](int processors) {
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    const unsigned grid = blocks_for(tiles_of(args.size), processors);
    switch (args.element_bytes) {
      case 8: apply_kernel<uint64_t><<<grid, kThreads, 0, on>>>(args); break;
      case 4: apply_kernel<uint32_t><<<grid, kThreads, 0, on>>>(args); break;
      default: apply_kernel<uint16_t><<<grid, kThreads, 0, on>>>(args); break;
    }
  });
}

}  // namespace privkernels
