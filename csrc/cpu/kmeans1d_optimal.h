// Optimal one-dimensional k-means: dynamic programming over distinct values, each row by divide and conquer, because
// the best last split moves to the right with the end (the cost of an interval is a concave Monge array).
#pragma once

#include <cstdint>
#include <vector>

namespace privkernels {

class OptimalClusters {
 public:
  // values [D] distinct and increasing; starts [D + 1]: rank of each one's first copy, and N.
  OptimalClusters(const std::vector<float>& values, const std::vector<int64_t>& starts)
      : starts_(starts),
        size_(static_cast<int64_t>(values.size())),
        sums_(values.size() + 1),
        squares_(values.size() + 1) {
    // Prefix sums outwards from the middle, so that an outlier at one end spoils no sum at the other.
    int64_t middle = 0;
    while (starts[at(middle + 1)] <= starts.back() / 2) ++middle;
    const double center = values[at(middle)];
    for (int64_t i = middle; i < size_; ++i) {
      const double x = values[at(i)] - center, n = count(i, i + 1);
      sums_[at(i + 1)] = sums_[at(i)] + n * x, squares_[at(i + 1)] = squares_[at(i)] + n * x * x;
    }
    for (int64_t i = middle - 1; i >= 0; --i) {
      const double x = values[at(i)] - center, n = count(i, i + 1);
      sums_[at(i)] = sums_[at(i + 1)] - n * x, squares_[at(i)] = squares_[at(i + 1)] - n * x * x;
    }
  }

  // The first distinct value of each of the k clusters, k <= D.
  std::vector<int64_t> solve(int64_t k) {
    std::vector<int32_t> splits(at(k * size_));
    before_.resize(at(size_)), row_.resize(at(size_));
    for (int64_t j = 0; j < size_; ++j) row_[at(j)] = cost(0, j + 1);
    for (int64_t clusters = 1; clusters < k; ++clusters) {
      before_.swap(row_);
      fill(clusters, size_ - 1, clusters, size_ - 1, splits.data() + clusters * size_);
    }
    std::vector<int64_t> firsts(at(k), 0);
    for (int64_t cluster = k - 1, last = size_ - 1; cluster > 0; --cluster) {
      firsts[at(cluster)] = splits[at(cluster * size_ + last)];
      last = firsts[at(cluster)] - 1;
    }
    return firsts;
  }

 private:
  static size_t at(int64_t i) { return static_cast<size_t>(i); }
  double count(int64_t i, int64_t j) const { return static_cast<double>(starts_[at(j)] - starts_[at(i)]); }
  double cost(int64_t i, int64_t j) const {
    if (j - i == 1) return 0.0;
    const double sum = sums_[at(j)] - sums_[at(i)];
    const double result = (squares_[at(j)] - squares_[at(i)]) - sum * sum / count(i, j);
    return result > 0.0 ? result : 0.0;
  }
  // row_[j] for j in [low, high], whose last cluster begins in [first, last].
  void fill(int64_t low, int64_t high, int64_t first, int64_t last, int32_t* splits) {
    if (low > high) return;
    const int64_t j = low + (high - low) / 2;
    int64_t best = first;
    double least = before_[at(first - 1)] + cost(first, j + 1);
    for (int64_t i = first + 1; i <= (j < last ? j : last); ++i) {
      const double total = before_[at(i - 1)] + cost(i, j + 1);
      if (total < least) least = total, best = i;
    }
    row_[at(j)] = least;
    splits[j] = static_cast<int32_t>(best);
    fill(low, j - 1, first, best, splits);
    fill(j + 1, high, best, last, splits);
  }

  const std::vector<int64_t>& starts_;
  int64_t size_;
  std::vector<double> sums_, squares_, before_, row_;
};

}  // namespace privkernels
