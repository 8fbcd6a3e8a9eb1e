// em_select on CUDA: the launch and the sums over a thread block. The arithmetic is core/'s and gives the CPU's
// indices (built with -fmad=false): sums are of integers, so their order does not matter.
//
// A thread block takes a segment at a time. To find the candidate where the cumulative sum passes the target, the
// warps sum a part of the range each, the block goes into the part that holds the target, and so on until every
// thread has one candidate; how often depends on the number of candidates alone.
#include "core/chacha20.h"
#include "core/select.h"
#include "cpu/em_select_variant.h"
#include "cuda/launch.h"

namespace privkernels {
namespace {

constexpr int kWarp = 32;
constexpr int kMostWarps = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

struct Shared {
  double largest[kMostWarps];
  Wide sums[kMostWarps];
  Accepted accepted[kMostWarps];
  Wide bits;
};

// Scores of one segment; removed candidates are -infinity.
template <class T>
struct DeviceScores {
  T* copy;  // contiguous, or null while the scores are read where they lie
  const T* at;
  int64_t stride, count;
  double largest, scale;

  __device__ double score(int64_t i) const { return static_cast<double>(at[i * stride]); }
  __device__ Wide weight(int64_t i) const {
    const auto weight = integer_weight_of(score(i), largest, scale);
    return wide_weight(weight.high, weight.low);
  }
};

__device__ int lane_of() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ int warp_of() { return static_cast<int>(threadIdx.x) / kWarp; }
__device__ int warps() { return static_cast<int>(blockDim.x) / kWarp; }

__device__ Wide shuffled_xor(Wide value, int mask) {
  const unsigned long long high = __shfl_xor_sync(kAllLanes, static_cast<unsigned long long>(high_half(value)), mask);
  const unsigned long long low = __shfl_xor_sync(kAllLanes, static_cast<unsigned long long>(low_half(value)), mask);
  return (static_cast<Wide>(high) << 64) | low;
}

__device__ Wide shuffled_up(Wide value, int by) {
  const unsigned long long high = __shfl_up_sync(kAllLanes, static_cast<unsigned long long>(high_half(value)), by);
  const unsigned long long low = __shfl_up_sync(kAllLanes, static_cast<unsigned long long>(low_half(value)), by);
  return (static_cast<Wide>(high) << 64) | low;
}

// The largest score, the same in every thread. With `check`, notes the lowest position that is not usable.
template <class T>
__device__ bool find_largest(DeviceScores<T>& scores, bool check, int64_t position, unsigned long long* failure,
                             Shared& shared) {
  double best = -INFINITY;
  bool usable = true;
  for (int64_t i = threadIdx.x; i < scores.count; i += blockDim.x) {
    const double value = scores.score(i);
    best = larger(value, best);
    if (check && !(value <= kLargestScore && value >= -kLargestScore)) {
      // -1 is the largest unsigned number, so the minimum is the lowest position.
      if (usable) atomicMin(failure, static_cast<unsigned long long>(position + i));
      usable = false;
    }
  }
  for (int mask = kWarp / 2; mask > 0; mask /= 2) best = larger(__shfl_xor_sync(kAllLanes, best, mask), best);
  if (lane_of() == 0) shared.largest[warp_of()] = best;
  const bool all_usable = __syncthreads_and(usable);
  best = shared.largest[0];
  for (int warp = 1; warp < warps(); ++warp) best = larger(shared.largest[warp], best);
  scores.largest = best;
  __syncthreads();
  return all_usable;
}

// The sums of the weights of the warps' parts of [begin, begin + warps * span) to shared.sums.
template <class T>
__device__ void sum_parts(const DeviceScores<T>& scores, int64_t begin, int64_t span, Shared& shared) {
  const int64_t first = begin + warp_of() * span;
  Wide sum = 0;
  for (int64_t i = first + lane_of(); i < first + span; i += kWarp) {
    if (i < scores.count) sum += scores.weight(i);
  }
  for (int mask = kWarp / 2; mask > 0; mask /= 2) sum += shuffled_xor(sum, mask);
  if (lane_of() == 0) shared.sums[warp_of()] = sum;
  __syncthreads();
}

__device__ int64_t part_of(int64_t length) {
  const int64_t span = (length + warps() - 1) / warps();
  return (span + kWarp - 1) / kWarp * kWarp;
}

// The cumulative sum up to and including this thread's value.
__device__ Wide inclusive_sum(Wide value, Shared& shared) {
  for (int by = 1; by < kWarp; by *= 2) {
    const Wide below = shuffled_up(value, by);
    if (lane_of() >= by) value += below;
  }
  if (lane_of() == kWarp - 1) shared.sums[warp_of()] = value;
  __syncthreads();
  for (int warp = 0; warp < warp_of(); ++warp) value += shared.sums[warp];
  return value;
}

template <class T>
__device__ int64_t draw_exponential(const DeviceScores<T>& scores, Shared& shared) {
  int64_t begin = 0, span = part_of(scores.count);
  sum_parts(scores, begin, span, shared);
  Wide total = 0;
  for (int warp = 0; warp < warps(); ++warp) total += shared.sums[warp];
  Wide target = scale_to_wide(shared.bits, total);
  for (;;) {
    Wide cumulative = 0, before = 0;
    int chosen = 0;
    for (int warp = 0; warp < warps(); ++warp) {
      cumulative += shared.sums[warp];
      before = cumulative <= target ? cumulative : before;
      chosen += cumulative <= target;
    }
    __syncthreads();
    begin += chosen * span;
    target -= before;
    if (span <= static_cast<int64_t>(blockDim.x)) break;
    span = part_of(span);
    sum_parts(scores, begin, span, shared);
  }
  const int64_t own = begin + threadIdx.x;
  const bool valid = static_cast<int64_t>(threadIdx.x) < span && own < scores.count;
  const Wide cumulative = inclusive_sum(valid ? scores.weight(own) : Wide{0}, shared);
  return begin + __syncthreads_count(valid && cumulative <= target);
}

__device__ Accepted better_of(const Accepted& a, const Accepted& b) {
  if (b.index < 0) return a;
  if (a.index < 0) return b;
  const bool second = b.priority < a.priority || (b.priority == a.priority && b.index < a.index);
  return second ? b : a;
}

template <class T>
__device__ int64_t draw_permute_and_flip(const DeviceScores<T>& scores, const SelectAddress& address, Shared& shared) {
  Accepted best = none_accepted();
  for (int64_t pair = threadIdx.x; 2 * pair < scores.count; pair += blockDim.x) {
    const uint32_t counter[4] = {static_cast<uint32_t>(pair), address.segment, address.peel, kPurposePermuteAndFlip};
    uint32_t words[16];
    chacha20_block(address.key, counter, words);
    for (int half = 0; half < 2; ++half) {
      const int64_t i = 2 * pair + half;
      if (i >= scores.count) break;
      const auto weight = integer_weight_of(scores.score(i), scores.largest, scores.scale);
      consider(best, flip_of(words + 8 * half, 1), weight.high, weight.low, i);
    }
  }
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    const Accepted other{shuffled_xor(best.priority, mask),
                         static_cast<int64_t>(__shfl_xor_sync(kAllLanes, static_cast<long long>(best.index), mask))};
    best = better_of(best, other);
  }
  if (lane_of() == 0) shared.accepted[warp_of()] = best;
  __syncthreads();
  best = shared.accepted[0];
  for (int warp = 1; warp < warps(); ++warp) best = better_of(best, shared.accepted[warp]);
  __syncthreads();
  return best.index;
}

// All draws of one segment by one thread block.
template <class T>
__device__ void draw_segment(const EmSelectArgs& args, int64_t segment, T* copy, unsigned long long* failure,
                             Shared& shared) {
  const int64_t position = args.offsets ? args.offsets[segment] : segment * args.segment_length;
  const int64_t start = args.offsets ? position * args.candidate_stride : segment * args.segment_stride;
  DeviceScores<T> scores{nullptr,
                         static_cast<const T*>(args.scores) + start,
                         args.candidate_stride,
                         select_length(args, segment),
                         0,
                         args.multiplier * kLog2E};
  if (copy) {
    scores.copy = copy + position;
    for (int64_t i = threadIdx.x; i < scores.count; i += blockDim.x) scores.copy[i] = scores.at[i * scores.stride];
    scores.at = scores.copy, scores.stride = 1;
    __syncthreads();
  }
  const uint64_t global = args.first_segment + static_cast<uint64_t>(segment);
  for (int64_t peel = 0; peel < args.k; ++peel) {
    const SelectAddress address{args.key, static_cast<uint32_t>(global), static_cast<uint32_t>(peel)};
    if (threadIdx.x == 0 && !args.permute_and_flip) shared.bits = select_bits(args.key, global, address.peel);
    if (!find_largest(scores, peel == 0, position, failure, shared)) return;
    const int64_t index =
        args.permute_and_flip ? draw_permute_and_flip(scores, address, shared) : draw_exponential(scores, shared);
    if (threadIdx.x == 0) {
      args.index[segment * args.k + peel] = index;
      if (copy) scores.copy[index] = static_cast<T>(-INFINITY);
    }
    __syncthreads();
  }
}

template <class T>
__global__ void __launch_bounds__(kWarp* kMostWarps)
    em_select_kernel(const EmSelectArgs args, T* copy, unsigned long long* failure) {
  __shared__ alignas(16) unsigned char memory[sizeof(Shared)];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  for (int64_t segment = blockIdx.x; segment < args.num_segments; segment += gridDim.x) {
    draw_segment<T>(args, segment, copy, failure, shared);
    __syncthreads();
  }
}

}  // namespace

Status em_select_cuda(const EmSelectArgs& args, void* copy, int64_t* failure, int device, void* stream) {
  if (const Status status = check_em_select(args); status.code != StatusCode::kOk) return status;
  if (args.num_segments == 0) return {};
  if (args.k > 1 && copy == nullptr) {
    return {StatusCode::kInvalidArgument, -1, -1, "em_select needs room for a copy of the scores where k > 1"};
  }
  return launch_on(device, [&](int processors) {
    const int64_t most = processors * int64_t{16};
    const auto blocks = static_cast<unsigned>(args.num_segments < most ? args.num_segments : most);
    // The length of ragged segments is not known on the host.
    const bool long_rows = args.offsets == nullptr && args.segment_length > 16384;
    const unsigned threads = long_rows ? kWarp * kMostWarps : 256;
    auto* lowest = reinterpret_cast<unsigned long long*>(failure);
    void* room = args.k > 1 ? copy : nullptr;
    if (args.is_double) {
      em_select_kernel<double>
          <<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(args, static_cast<double*>(room), lowest);
    } else {
      em_select_kernel<float>
          <<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(args, static_cast<float*>(room), lowest);
    }
  });
}

}  // namespace privkernels
