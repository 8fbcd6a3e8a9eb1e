// What kmeans1d decides on the host, for values that lie sorted on either device: checks, the method, where Lloyd's
// algorithm starts, and the optimal clusters.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <vector>

#include "core/kmeans.h"
#include "kmeans1d_optimal.h"
#include "privkernels/kmeans1d.h"

namespace privkernels {

constexpr int64_t kMostCells = int64_t{1} << 26;  // of the optimal method's table of splits
constexpr int64_t kAutoCells = int64_t{1} << 20;
constexpr int64_t kMostClusters = 65536;
constexpr const char* kNotIncreasing = "kmeans1d_split needs finite, strictly increasing centroids";

inline Status kmeans1d_invalid(const char* message) { return {StatusCode::kInvalidArgument, -1, -1, message}; }

inline bool index_fits(int bytes, int64_t clusters) {
  return (bytes == 1 && clusters <= 256) || (bytes == 2 && clusters <= 32768) || bytes == 4;
}

inline Status check_kmeans1d(const Kmeans1dArgs& args) {
  if (args.num_values < 1) return kmeans1d_invalid("kmeans1d needs at least one value");
  if (args.k < 1 || args.k > kMostClusters) return kmeans1d_invalid("kmeans1d needs 1 to 65536 clusters");
  if (args.iterations < 0) return kmeans1d_invalid("kmeans1d needs 0 or more iterations");
  if (!index_fits(args.index_bytes, args.k)) return kmeans1d_invalid("kmeans1d needs indices wide enough for k");
  return {};
}

// All but the centroids' values, which may lie on another device.
inline Status check_kmeans1d_split(const Kmeans1dSplitArgs& args) {
  if (args.num_values < 0) return kmeans1d_invalid("kmeans1d_split needs a size of 0 or more");
  if (args.num_centroids < 1 || args.num_centroids > kMostClusters) {
    return kmeans1d_invalid("kmeans1d_split needs 1 to 65536 centroids");
  }
  if (args.centroid_bits < 0 || args.centroid_bits > 40 || args.residual_bits < 0 || args.residual_bits > 40) {
    return kmeans1d_invalid("kmeans1d_split needs 0 to 40 bits");
  }
  if (!index_fits(args.index_bytes, args.num_centroids)) {
    return kmeans1d_invalid("kmeans1d_split needs wide enough indices");
  }
  return {};
}

inline bool increasing(const float* centroids, int64_t count) {
  for (int64_t c = 0; c < count; ++c) {
    if (!is_finite(centroids[c]) || (c > 0 && !(centroids[c - 1] < centroids[c]))) return false;
  }
  return true;
}

inline std::vector<float> boundaries_of(const std::vector<float>& centroids) {
  std::vector<float> boundaries;
  for (size_t c = 1; c < centroids.size(); ++c) boundaries.push_back(boundary(centroids[c - 1], centroids[c]));
  return boundaries;
}

// The distinct values, and the rank of each one's first copy, then N.
inline void find_distinct(const float* sorted, int64_t size, std::vector<float>& values, std::vector<int64_t>& starts) {
  for (int64_t i = 0; i < size; ++i) {
    if (i > 0 && sorted[i] == sorted[i - 1]) continue;
    values.push_back(sorted[i]);
    starts.push_back(i);
  }
  starts.push_back(size);
}

// Values at the k quantiles; where some coincide, fewer.
template <class Sorted>
std::vector<float> quantiles(const Sorted& sorted, int64_t k) {
  std::vector<int64_t> ranks;
  for (int64_t i = 0; i < k; ++i) ranks.push_back(quantile_rank(i, k, sorted.size()));
  std::vector<float> start = sorted.values_at(ranks);
  start.erase(std::unique(start.begin(), start.end()), start.end());
  return start;
}

// Adds the missing ones, from the distinct values that are not among them.
inline void fill_start(const std::vector<float>& distinct, int64_t k, std::vector<float>& start) {
  std::vector<float> others;
  std::set_difference(distinct.begin(), distinct.end(), start.begin(), start.end(), std::back_inserter(others));
  const int64_t missing = k - static_cast<int64_t>(start.size()), size = static_cast<int64_t>(others.size());
  for (int64_t i = 0; i < missing; ++i) start.push_back(others[static_cast<size_t>(quantile_rank(i, missing, size))]);
  std::sort(start.begin(), start.end());
}

// The centroids by the method that `args` asks for; writes the summary.
template <class Sorted>
std::vector<float> find_centroids(const Kmeans1dArgs& args, const Sorted& sorted, const char** problem) {
  std::vector<float> centroids, distinct;
  std::vector<int64_t> starts;
  KmeansMethod method = args.method;
  args.summary[2] = 0;
  if (method == KmeansMethod::kAuto && sorted.more_distinct(std::max(args.k, kAutoCells / args.k))) {
    method = KmeansMethod::kLloyd;
  }
  if (method == KmeansMethod::kLloyd) centroids = quantiles(sorted, args.k);
  if (static_cast<int64_t>(centroids.size()) < args.k) {
    sorted.distinct(distinct, starts);
    const int64_t count = static_cast<int64_t>(distinct.size()), cells = count * std::min(args.k, count);
    if (method == KmeansMethod::kAuto) method = KmeansMethod::kOptimal;
    if (count <= args.k) {
      centroids = distinct;
    } else if (method == KmeansMethod::kOptimal) {
      if (cells > kMostCells) {
        *problem = "the optimal method needs k times the number of distinct values up to 2**26: use Lloyd's";
        return {};
      }
      std::vector<int64_t> firsts = OptimalClusters(distinct, starts).solve(args.k);
      for (int64_t& first : firsts) first = starts[static_cast<size_t>(first)];
      firsts.push_back(sorted.size());
      centroids = sorted.means(firsts);
    } else {
      fill_start(distinct, args.k, centroids);
    }
  }
  if (method == KmeansMethod::kLloyd) args.summary[2] = sorted.lloyd(args.iterations, centroids);
  args.summary[0] = static_cast<int64_t>(centroids.size());
  args.summary[1] = static_cast<int64_t>(method);
  return centroids;
}

}  // namespace privkernels
