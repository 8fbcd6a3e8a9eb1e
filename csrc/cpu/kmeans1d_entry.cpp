// The CPU entry points of kmeans1d: checks, sorts, clusters, and splits the loops over values over threads.
#include <memory>
#include <new>

#include "isa.h"
#include "kmeans1d_sorted.h"

namespace privkernels {
namespace {

constexpr int64_t kChunk = 16384;

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

void assign_values(const float* values, int64_t size, const std::vector<float>& centroids, int index_bytes, void* out,
                   const KmeansLoops& loops, int threads) {
  std::vector<float> boundaries = boundaries_of(centroids);
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
  if (problem != nullptr) return kmeans1d_invalid(problem);
  std::copy(centroids.begin(), centroids.end(), args.centroids);
  std::fill(args.centroids + centroids.size(), args.centroids + args.k, centroids.back());
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
  if (isa == nullptr) return kmeans1d_invalid(reason);
  try {
    return body(variant(*isa));
  } catch (const std::bad_alloc&) {
    return kmeans1d_invalid("kmeans1d has no memory for its scratch space");
  }
}

}  // namespace

Status kmeans1d_cpu(const Kmeans1dArgs& args, int threads) {
  if (const Status status = check_kmeans1d(args); status.code != StatusCode::kOk) return status;
  return with_loops([&](const KmeansLoops& loops) { return run(args, loops, threads); });
}

Status kmeans1d_split_cpu(const Kmeans1dSplitArgs& args, int threads) {
  if (const Status status = check_kmeans1d_split(args); status.code != StatusCode::kOk) return status;
  if (!increasing(args.centroids, args.num_centroids)) return kmeans1d_invalid(kNotIncreasing);
  return with_loops([&](const KmeansLoops& loops) { return run_split(args, loops, threads); });
}

}  // namespace privkernels
