// The CPU entry points of kmeans1d: checks, sorts, clusters, and splits the loops over values over threads.
#include <iterator>
#include <memory>
#include <new>

#include "isa.h"
#include "kmeans1d_optimal.h"
#include "kmeans1d_sorted.h"

namespace privkernels {
namespace {

constexpr int64_t kChunk = 16384;
constexpr int64_t kMostCells = int64_t{1} << 26;  // of the optimal method's table of splits
constexpr int64_t kAutoCells = int64_t{1} << 20;
constexpr int64_t kMostClusters = 65536;

const KmeansLoops& variant(Isa isa) {
#if defined(PRIVKERNELS_X86)
  switch (isa) {
    case Isa::kBase: return base::kmeans_loops;
    case Isa::kAvx2: return avx2::kmeans_loops;
    case Isa::kAvx512: return avx512::kmeans_loops;
  }
#endif
  (void)isa;
  return base::kmeans_loops;
}

Status invalid(const char* message) { return {StatusCode::kInvalidArgument, -1, -1, message}; }

bool index_fits(int bytes, int64_t clusters) {
  return (bytes == 1 && clusters <= 256) || (bytes == 2 && clusters <= 32768) || bytes == 4;
}

// Sorts the values into the second of two scratch buffers of 4 bytes a value; returns the first that is not finite, or
// -1. Fewer buffers mean fewer pages that the system has to clear.
int64_t sort_values(const float* values, int64_t size, const KmeansLoops& loops, unsigned char* first,
                    unsigned char* second) {
  uint32_t* keys = reinterpret_cast<uint32_t*>(kRadixPasses % 2 == 0 ? second : first);
  uint32_t* other = reinterpret_cast<uint32_t*>(kRadixPasses % 2 == 0 ? first : second);
  std::vector<uint32_t> histograms(kRadixPasses * kRadixSize);
  std::vector<int64_t> places(kRadixPasses * kRadixSize);
  // Counts of 32 bits are enough for slices; their sums are not.
  constexpr int64_t kSlice = int64_t{1} << 31;
  for (int64_t begin = 0; begin < size; begin += kSlice) {
    std::fill(histograms.begin(), histograms.end(), 0u);
    const int64_t bad = loops.keys(values + begin, std::min(kSlice, size - begin), keys + begin, histograms.data());
    if (bad >= 0) return begin + bad;
    for (size_t i = 0; i < places.size(); ++i) places[i] += histograms[i];
  }
  for (int pass = 0; pass < kRadixPasses; ++pass) {
    int64_t* next = places.data() + pass * kRadixSize;
    int64_t sum = 0;
    for (int digit = 0; digit < kRadixSize; ++digit) {
      const int64_t count = next[digit];
      next[digit] = sum, sum += count;
    }
    const int shift = pass * kRadixBits;
    if (pass == kRadixPasses - 1) {
      for (int64_t i = 0; i < size; ++i) {
        reinterpret_cast<float*>(other)[next[(keys[i] >> shift) % kRadixSize]++] = from_order_key(keys[i]);
      }
    } else {
      for (int64_t i = 0; i < size; ++i) other[next[(keys[i] >> shift) % kRadixSize]++] = keys[i];
      std::swap(keys, other);
    }
  }
  return -1;
}

// The distinct values, and the rank of each one's first copy, then N.
void find_distinct(const float* sorted, int64_t size, std::vector<float>& values, std::vector<int64_t>& starts) {
  for (int64_t i = 0; i < size; ++i) {
    if (i > 0 && sorted[i] == sorted[i - 1]) continue;
    values.push_back(sorted[i]);
    starts.push_back(i);
  }
  starts.push_back(size);
}

// Whether there are more than `limit` distinct values.
bool more_distinct(const float* sorted, int64_t size, int64_t limit) {
  int64_t count = 1;
  for (int64_t i = 1; i < size && count <= limit; ++i) count += sorted[i] != sorted[i - 1] ? 1 : 0;
  return count > limit;
}

// floor((2 i + 1) size / (2 k)) without overflow.
int64_t quantile_rank(int64_t i, int64_t k, int64_t size) {
  const int64_t whole = size / (2 * k), rest = size % (2 * k);
  return (2 * i + 1) * whole + (2 * i + 1) * rest / (2 * k);
}

// Values at the k quantiles; where some coincide, fewer.
std::vector<float> quantiles(const float* sorted, int64_t size, int64_t k) {
  std::vector<float> start;
  for (int64_t i = 0; i < k; ++i) {
    const float value = sorted[quantile_rank(i, k, size)];
    if (start.empty() || value != start.back()) start.push_back(value);
  }
  return start;
}

// Adds the missing ones, from the distinct values that are not among them.
void fill_start(const std::vector<float>& distinct, int64_t k, std::vector<float>& start) {
  std::vector<float> others;
  std::set_difference(distinct.begin(), distinct.end(), start.begin(), start.end(), std::back_inserter(others));
  const int64_t missing = k - static_cast<int64_t>(start.size()), size = static_cast<int64_t>(others.size());
  for (int64_t i = 0; i < missing; ++i) start.push_back(others[static_cast<size_t>(quantile_rank(i, missing, size))]);
  std::sort(start.begin(), start.end());
}

// The centroids by the method that `args` asks for; writes the summary.
std::vector<float> find_centroids(const Kmeans1dArgs& args, const SortedValues& sorted, const char** problem) {
  std::vector<float> centroids, distinct;
  std::vector<int64_t> starts;
  KmeansMethod method = args.method;
  args.summary[2] = 0;
  if (method == KmeansMethod::kAuto &&
      more_distinct(sorted.data(), sorted.size(), std::max(args.k, kAutoCells / args.k))) {
    method = KmeansMethod::kLloyd;
  }
  if (method == KmeansMethod::kLloyd) centroids = quantiles(sorted.data(), sorted.size(), args.k);
  if (static_cast<int64_t>(centroids.size()) < args.k) {
    find_distinct(sorted.data(), sorted.size(), distinct, starts);
    const int64_t count = static_cast<int64_t>(distinct.size()), cells = count * std::min(args.k, count);
    if (method == KmeansMethod::kAuto) method = KmeansMethod::kOptimal;
    if (count <= args.k) {
      centroids = distinct;
    } else if (method == KmeansMethod::kOptimal) {
      if (cells > kMostCells) {
        *problem = "the optimal method needs k times the number of distinct values up to 2**26: use Lloyd's";
        return {};
      }
      const std::vector<int64_t> firsts = OptimalClusters(distinct, starts).solve(args.k);
      for (size_t c = 0; c < firsts.size(); ++c) {
        const int64_t end = c + 1 < firsts.size() ? starts[static_cast<size_t>(firsts[c + 1])] : sorted.size();
        centroids.push_back(sorted.mean(starts[static_cast<size_t>(firsts[c])], end));
      }
    } else {
      centroids = quantiles(sorted.data(), sorted.size(), args.k);
      if (static_cast<int64_t>(centroids.size()) < args.k) fill_start(distinct, args.k, centroids);
    }
  }
  if (method == KmeansMethod::kLloyd) args.summary[2] = sorted.lloyd(args.iterations, centroids);
  args.summary[0] = static_cast<int64_t>(centroids.size());
  args.summary[1] = static_cast<int64_t>(method);
  return centroids;
}

void assign_values(const float* values, int64_t size, const std::vector<float>& centroids, int index_bytes, void* out,
                   const KmeansLoops& loops, int threads) {
  std::vector<float> boundaries;
  for (size_t c = 1; c < centroids.size(); ++c) boundaries.push_back(boundary(centroids[c - 1], centroids[c]));
  const int64_t m = static_cast<int64_t>(boundaries.size());
  std::vector<uint32_t> table;
  if (m > 24 && size >= 65536) {
    table.resize(65537);
    size_t below = 0;
    for (size_t bucket = 0; bucket < table.size(); ++bucket) {
      while (below < boundaries.size() && order_key(boundaries[below]) < uint64_t{bucket} << 16) ++below;
      table[bucket] = static_cast<uint32_t>(below);
    }
  }
  boundaries.push_back(from_bits(0x7f800000u, 0.0f));  // infinity: is read, and above every value
  parallel_for((size + kChunk - 1) / kChunk, threads, [&](int, int64_t chunk) {
    const int64_t begin = chunk * kChunk;
    loops.assign(values + begin, std::min(kChunk, size - begin), boundaries.data(), m,
                 table.empty() ? nullptr : table.data(), index_bytes, static_cast<char*>(out) + begin * index_bytes);
  });
}

Status run(const Kmeans1dArgs& args, const KmeansLoops& loops, int threads) {
  const size_t size = static_cast<size_t>(args.num_values);
  const std::unique_ptr<unsigned char[]> first(new unsigned char[4 * size]), second(new unsigned char[4 * size]);
  const int64_t bad = sort_values(args.values, args.num_values, loops, first.get(), second.get());
  if (bad >= 0) return {StatusCode::kNonFinite, -1, bad, ""};
  const SortedValues values(reinterpret_cast<const float*>(second.get()), args.num_values, loops, threads);
  const char* problem = nullptr;
  const std::vector<float> centroids = find_centroids(args, values, &problem);
  if (problem != nullptr) return invalid(problem);
  for (int64_t c = 0; c < args.k; ++c) {
    args.centroids[c] = centroids[static_cast<size_t>(std::min(c, args.summary[0] - 1))];
  }
  *args.inertia = values.inertia(centroids);
  assign_values(args.values, args.num_values, centroids, args.index_bytes, args.assignment, loops, threads);
  return {};
}

Status run_split(const Kmeans1dSplitArgs& args, const KmeansLoops& loops, int threads) {
  for (int64_t i = 0; i < args.num_values; ++i) {
    if (!is_finite(args.values[i])) return {StatusCode::kNonFinite, -1, i, ""};
  }
  const std::vector<float> centroids(args.centroids, args.centroids + args.num_centroids);
  assign_values(args.values, args.num_values, centroids, args.index_bytes, args.assignment, loops, threads);
  const int64_t chunks = (args.num_values + kChunk - 1) / kChunk;
  std::vector<int64_t> failures(static_cast<size_t>(chunks), -1);
  parallel_for(chunks, threads, [&](int, int64_t chunk) {
    const int64_t begin = chunk * kChunk;
    failures[static_cast<size_t>(chunk)] = loops.split(args, begin, std::min(begin + kChunk, args.num_values));
  });
  for (const int64_t failure : failures) {
    if (failure >= 0) return {StatusCode::kInvalidParameter, -1, failure, "a value does not fit the grid"};
  }
  return {};
}

// Calls body with the loops of the chosen instruction set; memory that is not there becomes a status.
template <class Body>
Status with_loops(const Body& body) {
  const char* reason = "";
  const Isa* isa = chosen_isa(&reason);
  if (isa == nullptr) return invalid(reason);
  try {
    return body(variant(*isa));
  } catch (const std::bad_alloc&) {
    return invalid("kmeans1d has no memory for its scratch space");
  }
}

}  // namespace

Status kmeans1d_cpu(const Kmeans1dArgs& args, int threads) {
  if (args.num_values < 1) return invalid("kmeans1d needs at least one value");
  if (args.k < 1 || args.k > kMostClusters) return invalid("kmeans1d needs 1 to 65536 clusters");
  if (args.iterations < 0) return invalid("kmeans1d needs 0 or more iterations");
  if (!index_fits(args.index_bytes, args.k)) return invalid("kmeans1d needs indices wide enough for k");
  return with_loops([&](const KmeansLoops& loops) { return run(args, loops, threads); });
}

Status kmeans1d_split_cpu(const Kmeans1dSplitArgs& args, int threads) {
  if (args.num_values < 0) return invalid("kmeans1d_split needs a size of 0 or more");
  if (args.num_centroids < 1 || args.num_centroids > kMostClusters) {
    return invalid("kmeans1d_split needs 1 to 65536 centroids");
  }
  if (args.centroid_bits < 0 || args.centroid_bits > 40 || args.residual_bits < 0 || args.residual_bits > 40) {
    return invalid("kmeans1d_split needs 0 to 40 bits");
  }
  if (!index_fits(args.index_bytes, args.num_centroids)) return invalid("kmeans1d_split needs wide enough indices");
  for (int64_t c = 0; c < args.num_centroids; ++c) {
    if (!is_finite(args.centroids[c]) || (c > 0 && !(args.centroids[c - 1] < args.centroids[c]))) {
      return invalid("kmeans1d_split needs finite, strictly increasing centroids");
    }
  }
  return with_loops([&](const KmeansLoops& loops) { return run_split(args, loops, threads); });
}

}  // namespace privkernels
