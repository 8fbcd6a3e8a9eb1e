// kmeans1d on CUDA: a radix sort, sums in the CPU's order, and the loops over values. The host decides
// (kmeans1d_start.h, the CPU's own) and reads what it needs for that, so only the last loop may still run when the call
// returns.
#include <cub/device/device_radix_sort.cuh>
#include <new>

#include "core/kmeans.h"
#include "cpu/kmeans1d_start.h"
#include "cuda/launch.h"

namespace privkernels {
namespace {

constexpr int kThreads = 256;
constexpr int kGroupThreads = kKmeansGroup * kKmeansLanes;  // one to a lane of a block of a group
constexpr int64_t kGroupValues = kKmeansBlock * kKmeansGroup;
constexpr unsigned kEveryLane = 0xffffffffu;

// What the host reads back.
struct KmeansState {
  unsigned long long failure;   // first value that is not finite; all ones: none
  unsigned long long unfit;     // first value that does not fit the grid; all ones: none
  unsigned long long distinct;  // values
  unsigned long long negative;  // values, the last one not counted
  long long iterations;
  int moved;    // in this iteration
  int stopped;  // because nothing moved
};

constexpr KmeansState kFresh = {~0ull, ~0ull, 0, 0, 0, 0, 0};

unsigned grid_for(int64_t threads, int processors) {
  const int64_t needed = (threads + kThreads - 1) / kThreads, most = processors * int64_t{16};
  return static_cast<unsigned>(needed < most ? needed : most);
}

__device__ int64_t first_index() { return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; }
__device__ int64_t index_step() { return static_cast<int64_t>(gridDim.x) * kThreads; }

// combine_lanes of eight neighbouring threads: the same pairs, and a sum of two does not depend on their order.
__device__ double combine_threads(double own, unsigned threads) {
  for (int away = kKmeansLanes / 2; away > 0; away /= 2) own += __shfl_xor_sync(threads, own, away);
  return own;
}

// part_sum by eight neighbouring threads, which all get it.
struct ThreadsPart {
  template <class T>
  __host__ __device__ double operator()(const T* x, int lo, int hi) const {
#if defined(__CUDA_ARCH__)
    const int lane = static_cast<int>(threadIdx.x) % kKmeansLanes, first = static_cast<int>(threadIdx.x) % 32 - lane;
    double sum = 0.0;
    for (int i = lo / kKmeansLanes * kKmeansLanes + lane; i < hi; i += kKmeansLanes) {
      if (i >= lo) sum += static_cast<double>(x[i]);
    }
    return combine_threads(sum, 0xffu << first);
#else
    return part_sum(x, lo, hi);
#endif
  }
};

// keys may be null: the values are then only checked.
__global__ void key_kernel(const float* values, int64_t size, uint32_t* keys, KmeansState* state) {
  for (int64_t i = first_index(); i < size; i += index_step()) {
    const float value = values[i];
    if (!is_finite(value)) atomicMin(&state->failure, static_cast<unsigned long long>(i));
    if (keys != nullptr) keys[i] = order_key(value);
  }
}

__global__ void sorted_kernel(const uint32_t* keys, int64_t size, float* sorted, KmeansState* state) {
  unsigned long long distinct = 0, negative = 0;  // of the block
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads; first < size; first += index_step()) {
    const int64_t i = first + threadIdx.x;
    bool is_new = false, is_negative = false;
    if (i < size) {
      const float value = from_order_key(keys[i]);
      sorted[i] = value;
      is_new = i == 0 || keys[i] != keys[i - 1];
      is_negative = value < 0.0f && i < size - 1;
    }
    distinct += __syncthreads_count(is_new);
    negative += __syncthreads_count(is_negative);
  }
  if (threadIdx.x == 0) atomicAdd(&state->distinct, distinct), atomicAdd(&state->negative, negative);
}

struct ValueTerm {
  const float* sorted;
  __device__ double operator()(int64_t i) const { return static_cast<double>(sorted[i]); }
};

// The squared distance of rank i to its centroid.
struct DistanceTerm {
  const float* sorted;
  const int64_t* firsts;
  const float* centroids;
  int64_t count;
  __device__ double operator()(int64_t i) const {
    const double off =
        static_cast<double>(sorted[i]) - static_cast<double>(centroids[first_above(firsts, 1, count, i) - 1]);
    return off * off;
  }
};

// A thread block takes a group: the sums of its blocks (where asked for) and their sum, both as part_sum takes them.
template <class Term>
__global__ void group_kernel(const Term term, int64_t size, double* block_sums, double* group_sums) {
  __shared__ double sums[kKmeansGroup];
  const int lane = static_cast<int>(threadIdx.x) % kKmeansLanes, block = static_cast<int>(threadIdx.x) / kKmeansLanes;
  for (int64_t group = blockIdx.x; group < kmeans_groups(size); group += gridDim.x) {
    const int64_t first = group * kGroupValues + block * kKmeansBlock;
    double sum = 0.0;
    for (int i = lane; i < kKmeansBlock; i += kKmeansLanes) {
      if (first + i < size) sum += term(first + i);
    }
    sum = combine_threads(sum, kEveryLane);
    if (lane == 0) {
      sums[block] = sum;  // 0 past the end, which changes no sum
      if (block_sums != nullptr && first < size) block_sums[first / kKmeansBlock] = sum;
    }
    __syncthreads();
    if (threadIdx.x < kKmeansLanes) {
      double total = 0.0;
      for (int i = lane; i < kKmeansGroup; i += kKmeansLanes) total += sums[i];
      total = combine_threads(total, 0xffu);
      if (lane == 0) group_sums[group] = total;
    }
    __syncthreads();
  }
}

__global__ void gather_kernel(const float* sorted, const int64_t* ranks, int64_t count, float* values) {
  for (int64_t i = first_index(); i < count; i += index_step()) values[i] = sorted[ranks[i]];
}

// First ranks of the clusters of these centroids (and N), and the boundaries between them.
__global__ void firsts_kernel(const float* sorted, int64_t size, const float* centroids, int64_t count, int64_t* firsts,
                              float* boundaries, const KmeansState* state) {
  if (state->stopped != 0) return;
  for (int64_t c = first_index(); c <= count; c += index_step()) {
    if (c == 0 || c == count) {
      firsts[c] = c == 0 ? 0 : size;
    } else {
      const float limit = boundary(centroids[c - 1], centroids[c]);
      boundaries[c - 1] = limit;
      firsts[c] = first_above(sorted, 0, size, limit);
    }
  }
}

// Eight threads take the mean of a cluster. One that is empty keeps its centroid.
__global__ void mean_kernel(const KmeansRanges ranges, const int64_t* firsts, int64_t count, float* centroids,
                            KmeansState* state) {
  if (state->stopped != 0) return;
  for (int64_t at = first_index(); at / kKmeansLanes < count; at += index_step()) {
    const int64_t c = at / kKmeansLanes, begin = firsts[c], end = firsts[c + 1];
    if (begin == end) continue;
    const float mean = range_mean(ranges, begin, end, ThreadsPart{});
    if (at % kKmeansLanes == 0 && mean != centroids[c]) {
      centroids[c] = mean;
      state->moved = 1;
    }
  }
}

__global__ void settle_kernel(KmeansState* state) {
  if (state->stopped != 0) return;
  ++state->iterations;
  state->stopped = state->moved == 0;
  state->moved = 0;
}

template <class Index>
__global__ void assign_kernel(const float* values, int64_t size, const float* boundaries, int64_t count,
                              Index* assignment) {
  for (int64_t i = first_index(); i < size; i += index_step()) {
    assignment[i] = static_cast<Index>(boundaries_below(values[i], boundaries, 0, count));
  }
}

template <class Index>
__global__ void split_kernel(const Kmeans1dSplitArgs args, const float* boundaries, const KmeansGrid grid,
                             KmeansState* state) {
  for (int64_t i = first_index(); i < args.num_values; i += index_step()) {
    const float value = args.values[i];
    const int64_t own = boundaries_below(value, boundaries, 0, args.num_centroids - 1);
    static_cast<Index*>(args.assignment)[i] = static_cast<Index>(own);
    if (!split_value(value, args.centroids[own], grid, args.residual + i, args.reconstructed + i)) {
      atomicMin(&state->unfit, static_cast<unsigned long long>(i));
    }
  }
}

// --- the host ---

struct CudaFailure {
  cudaError_t error;
};

void require(cudaError_t error) {
  if (error != cudaSuccess) throw CudaFailure{error};
}

// Both copies wait for the stream: `from` may be gone when to_device returns, and an error of a kernel before to_host
// shows in it.
template <class T>
void to_device(T* to, const T* from, int64_t count, cudaStream_t stream) {
  if (count == 0) return;  // one centroid has no boundaries, and `from` is null
  require(cudaMemcpyAsync(to, from, static_cast<size_t>(count) * sizeof(T), cudaMemcpyHostToDevice, stream));
  require(cudaStreamSynchronize(stream));
}

template <class T>
void to_host(T* to, const T* from, int64_t count, cudaStream_t stream) {
  require(cudaGetLastError());
  require(cudaMemcpyAsync(to, from, static_cast<size_t>(count) * sizeof(T), cudaMemcpyDeviceToHost, stream));
  require(cudaStreamSynchronize(stream));
}

size_t count_of(int64_t count) { return static_cast<size_t>(count); }

// Where each part of the workspace begins; `size` is that of all.
struct Workspace {
  size_t size = 0, state, first_keys, second_keys, block_sums, group_sums, before, firsts, centroids, boundaries, sort;
  size_t sort_bytes = 0;

  Workspace(int64_t values, int64_t k) {
    cub::DoubleBuffer<uint32_t> keys;
    require(cub::DeviceRadixSort::SortKeys(nullptr, sort_bytes, keys, values));
    const size_t blocks = count_of(kmeans_blocks(values)), groups = count_of(kmeans_groups(values));
    state = take(sizeof(KmeansState));
    first_keys = take(4 * count_of(values)), second_keys = take(4 * count_of(values));
    block_sums = take(8 * blocks), group_sums = take(8 * groups), before = take(8 * (groups + 1));
    firsts = take(8 * (count_of(k) + 1)), centroids = take(4 * count_of(k)), boundaries = take(4 * count_of(k));
    sort = take(sort_bytes);
  }

 private:
  size_t take(size_t bytes) {
    const size_t begin = size;
    size += (bytes + 255) / 256 * 256;
    return begin;
  }
};

// Sorted values on the device; what SortedValues is on the CPU.
class DeviceValues {
 public:
  DeviceValues(const Kmeans1dArgs& args, void* memory, int processors, cudaStream_t stream)
      : size_(args.num_values), processors_(processors), stream_(stream) {
    const Workspace at(size_, args.k);
    char* const base = static_cast<char*>(memory);
    state_ = reinterpret_cast<KmeansState*>(base + at.state);
    group_sums_ = reinterpret_cast<double*>(base + at.group_sums);
    firsts_ = reinterpret_cast<int64_t*>(base + at.firsts);
    centroids_ = reinterpret_cast<float*>(base + at.centroids);
    boundaries_ = reinterpret_cast<float*>(base + at.boundaries);
    double* const block_sums = reinterpret_cast<double*>(base + at.block_sums);
    double* const before = reinterpret_cast<double*>(base + at.before);
    cub::DoubleBuffer<uint32_t> keys(reinterpret_cast<uint32_t*>(base + at.first_keys),
                                     reinterpret_cast<uint32_t*>(base + at.second_keys));
    to_device(state_, &kFresh, 1, stream);
    key_kernel<<<grid_for(size_, processors), kThreads, 0, stream>>>(args.values, size_, keys.Current(), state_);
    size_t sort_bytes = at.sort_bytes;
    require(cub::DeviceRadixSort::SortKeys(base + at.sort, sort_bytes, keys, size_, 0, 32, stream));
    float* const sorted = reinterpret_cast<float*>(keys.Alternate());
    sorted_kernel<<<grid_for(size_, processors), kThreads, 0, stream>>>(keys.Current(), size_, sorted, state_);
    group_kernel<<<group_grid(), kGroupThreads, 0, stream>>>(ValueTerm{sorted}, size_, block_sums, group_sums_);
    to_host(&read_, state_, 1, stream);
    if (failed()) return;
    const std::vector<double> sums = group_sums();
    const int64_t middle = static_cast<int64_t>(read_.negative) / kGroupValues;
    std::vector<double> outwards(sums.size() + 1);
    sum_outwards(sums.data(), static_cast<int64_t>(sums.size()), middle, outwards.data());
    to_device(before, outwards.data(), static_cast<int64_t>(outwards.size()), stream);
    ranges_ = {sorted, size_, block_sums, middle, sums[count_of(middle)], before};
  }

  bool failed() const { return read_.failure != ~0ull; }
  int64_t failure() const { return static_cast<int64_t>(read_.failure); }

  // --- what find_centroids asks of sorted values ---

  int64_t size() const { return size_; }

  bool more_distinct(int64_t limit) const { return static_cast<int64_t>(read_.distinct) > limit; }

  void distinct(std::vector<float>& values, std::vector<int64_t>& starts) const {
    std::vector<float> sorted(count_of(size_));
    to_host(sorted.data(), ranges_.sorted, size_, stream_);
    find_distinct(sorted.data(), size_, values, starts);
  }

  std::vector<float> values_at(const std::vector<int64_t>& ranks) const {
    const int64_t count = static_cast<int64_t>(ranks.size());
    to_device(firsts_, ranks.data(), count, stream_);
    gather_kernel<<<grid_for(count, processors_), kThreads, 0, stream_>>>(ranges_.sorted, firsts_, count, centroids_);
    return centroids(count);
  }

  std::vector<float> means(const std::vector<int64_t>& firsts) const {
    const int64_t count = static_cast<int64_t>(firsts.size()) - 1;
    to_device(firsts_, firsts.data(), count + 1, stream_);
    take_means(count);
    return centroids(count);
  }

  int64_t lloyd(int64_t iterations, std::vector<float>& centroids) const {
    constexpr int64_t kAtOnce = 16;  // iterations before the host looks whether there is more to do
    const int64_t count = static_cast<int64_t>(centroids.size());
    to_device(centroids_, centroids.data(), count, stream_);
    to_device(state_, &kFresh, 1, stream_);
    KmeansState state = kFresh;
    while (state.stopped == 0 && state.iterations < iterations) {
      for (int64_t i = 0; i < std::min<int64_t>(kAtOnce, iterations - state.iterations); ++i) {
        find_firsts(count);
        take_means(count);
        settle_kernel<<<1, 1, 0, stream_>>>(state_);
      }
      to_host(&state, state_, 1, stream_);
    }
    centroids = this->centroids(count);
    return state.iterations;
  }

  // --- the result for these centroids ---

  double inertia(const std::vector<float>& centroids) const {
    const int64_t count = static_cast<int64_t>(centroids.size());
    to_device(centroids_, centroids.data(), count, stream_);
    to_device(state_, &kFresh, 1, stream_);
    find_firsts(count);
    group_kernel<<<group_grid(), kGroupThreads, 0, stream_>>>(DistanceTerm{ranges_.sorted, firsts_, centroids_, count},
                                                              size_, nullptr, group_sums_);
    double total = 0.0;
    for (const double sum : group_sums()) total += sum;
    return total;
  }

  // After inertia, which finds the boundaries.
  template <class Index>
  void assign(const float* values, int64_t centroids, void* assignment) const {
    assign_kernel<<<grid_for(size_, processors_), kThreads, 0, stream_>>>(values, size_, boundaries_, centroids - 1,
                                                                          static_cast<Index*>(assignment));
  }

 private:
  unsigned group_grid() const {
    return static_cast<unsigned>(std::min<int64_t>(kmeans_groups(size_), processors_ * int64_t{4}));
  }
  std::vector<double> group_sums() const {
    std::vector<double> sums(count_of(kmeans_groups(size_)));
    to_host(sums.data(), group_sums_, static_cast<int64_t>(sums.size()), stream_);
    return sums;
  }
  std::vector<float> centroids(int64_t count) const {
    std::vector<float> centroids(count_of(count));
    to_host(centroids.data(), centroids_, count, stream_);
    return centroids;
  }
  void find_firsts(int64_t count) const {
    firsts_kernel<<<grid_for(count + 1, processors_), kThreads, 0, stream_>>>(ranges_.sorted, size_, centroids_, count,
                                                                              firsts_, boundaries_, state_);
  }
  void take_means(int64_t count) const {
    mean_kernel<<<grid_for(count * kKmeansLanes, processors_), kThreads, 0, stream_>>>(ranges_, firsts_, count,
                                                                                       centroids_, state_);
  }

  int64_t size_;
  int processors_;
  cudaStream_t stream_;
  KmeansState* state_;
  KmeansState read_;  // after the sort
  double* group_sums_;
  int64_t* firsts_;
  float *centroids_, *boundaries_;
  KmeansRanges ranges_;
};

Status run(const Kmeans1dArgs& args, void* workspace, int processors, cudaStream_t stream) {
  const DeviceValues values(args, workspace, processors, stream);
  if (values.failed()) return {StatusCode::kNonFinite, -1, values.failure(), ""};
  const char* problem = nullptr;
  std::vector<float> centroids = find_centroids(args, values, &problem);
  if (problem != nullptr) return kmeans1d_invalid(problem);
  *args.inertia = values.inertia(centroids);
  const int64_t count = args.summary[0];
  centroids.resize(count_of(args.k), centroids.back());
  to_device(args.centroids, centroids.data(), args.k, stream);
  switch (args.index_bytes) {
    case 1: values.assign<uint8_t>(args.values, count, args.assignment); break;
    case 2: values.assign<int16_t>(args.values, count, args.assignment); break;
    default: values.assign<int32_t>(args.values, count, args.assignment);
  }
  return {};
}

template <class Index>
void launch_split(const Kmeans1dSplitArgs& args, const float* boundaries, KmeansState* state, int processors,
                  cudaStream_t stream) {
  split_kernel<Index><<<grid_for(args.num_values, processors), kThreads, 0, stream>>>(
      args, boundaries, kmeans_grid(args.centroid_bits, args.residual_bits), state);
}

Status run_split(const Kmeans1dSplitArgs& args, void* workspace, int processors, cudaStream_t stream) {
  std::vector<float> centroids(count_of(args.num_centroids));
  to_host(centroids.data(), args.centroids, args.num_centroids, stream);
  if (!increasing(centroids.data(), args.num_centroids)) return kmeans1d_invalid(kNotIncreasing);
  if (args.num_values == 0) return {};
  KmeansState* const state_there = static_cast<KmeansState*>(workspace);
  float* const boundaries = reinterpret_cast<float*>(state_there + 1);
  const std::vector<float> between = boundaries_of(centroids);
  to_device(state_there, &kFresh, 1, stream);
  to_device(boundaries, between.data(), static_cast<int64_t>(between.size()), stream);
  key_kernel<<<grid_for(args.num_values, processors), kThreads, 0, stream>>>(args.values, args.num_values, nullptr,
                                                                             state_there);
  switch (args.index_bytes) {
    case 1: launch_split<uint8_t>(args, boundaries, state_there, processors, stream); break;
    case 2: launch_split<int16_t>(args, boundaries, state_there, processors, stream); break;
    default: launch_split<int32_t>(args, boundaries, state_there, processors, stream);
  }
  KmeansState state;
  to_host(&state, state_there, 1, stream);
  if (state.failure != ~0ull) return {StatusCode::kNonFinite, -1, static_cast<int64_t>(state.failure), ""};
  if (state.unfit != ~0ull) {
    return {StatusCode::kInvalidParameter, -1, static_cast<int64_t>(state.unfit), "a value does not fit the grid"};
  }
  return {};
}

// Calls body(number of multiprocessors), which returns a status, on the device; exceptions become statuses.
template <class Body>
Status status_on(int device, const Body& body) {
  Status status;
  const Status launched = launch_on(device, [&](int processors) {
    try {
      status = body(processors);
    } catch (const CudaFailure& failure) {
      cudaGetLastError();  // it is reported here, and not again by the next call
      status = cuda_failed(failure.error);
    } catch (const std::bad_alloc&) {
      status = kmeans1d_invalid("kmeans1d has no memory for its scratch space");
    }
  });
  return status.code != StatusCode::kOk ? status : launched;
}

}  // namespace

Status kmeans1d_cuda_workspace(int64_t num_values, int64_t k, int device, int64_t* bytes) {
  return status_on(device, [&](int) {
    *bytes = static_cast<int64_t>(Workspace(num_values, k).size);
    return Status{};
  });
}

Status kmeans1d_cuda(const Kmeans1dArgs& args, void* workspace, int device, void* stream) {
  if (const Status status = check_kmeans1d(args); status.code != StatusCode::kOk) return status;
  return status_on(device,
                   [&](int processors) { return run(args, workspace, processors, static_cast<cudaStream_t>(stream)); });
}

Status kmeans1d_split_cuda(const Kmeans1dSplitArgs& args, void* workspace, int device, void* stream) {
  if (const Status status = check_kmeans1d_split(args); status.code != StatusCode::kOk) return status;
  return status_on(device, [&](int processors) {
    return run_split(args, workspace, processors, static_cast<cudaStream_t>(stream));
  });
}

}  // namespace privkernels
