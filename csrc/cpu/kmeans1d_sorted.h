// Sorted values, the sums of any range of them, and Lloyd's steps on them: a cluster is a range of ranks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kmeans1d_start.h"
#include "kmeans1d_variant.h"
#include "parallel.h"

namespace privkernels {

class SortedValues {
 public:
  SortedValues(const float* sorted, int64_t size, const KmeansLoops& loops, int threads)
      : sorted_(sorted), size_(size), loops_(loops), threads_(threads) {
    sums_.resize(at(kmeans_blocks(size)));
    parallel_for((size + kChunk - 1) / kChunk, threads, [&](int, int64_t chunk) {
      const int64_t begin = chunk * kChunk, count = std::min(kChunk, size - begin);
      loops.block_sums(sorted + begin, count, sums_.data() + begin / kKmeansBlock);
    });
    const int64_t groups = kmeans_groups(size);
    const int64_t middle = (std::lower_bound(sorted, sorted + size - 1, 0.0f) - sorted) / kGroupValues;
    before_.resize(at(groups + 1));
    ranges_ = {sorted, size, sums_.data(), middle, 0.0, before_.data()};
    std::vector<double> group_sums(at(groups));
    for (int64_t g = 0; g < groups; ++g) group_sums[at(g)] = group_part(ranges_, g, 0, kKmeansGroup, SerialPart{});
    ranges_.middle_sum = group_sums[at(middle)];
    sum_outwards(group_sums.data(), groups, middle, before_.data());
  }
  SortedValues(const SortedValues&) = delete;  // ranges_ points into the vectors
  SortedValues& operator=(const SortedValues&) = delete;

  // --- what find_centroids asks of sorted values ---

  int64_t size() const { return size_; }

  // Whether there are more than `limit` distinct values.
  bool more_distinct(int64_t limit) const {
    int64_t count = 1;
    for (int64_t i = 1; i < size_ && count <= limit; ++i) count += sorted_[i] != sorted_[i - 1] ? 1 : 0;
    return count > limit;
  }

  void distinct(std::vector<float>& values, std::vector<int64_t>& starts) const {
    find_distinct(sorted_, size_, values, starts);
  }

  std::vector<float> values_at(const std::vector<int64_t>& ranks) const {
    std::vector<float> values;
    for (const int64_t rank : ranks) values.push_back(sorted_[rank]);
    return values;
  }

  // The means of the clusters with these first ranks (and N); none is empty.
  std::vector<float> means(const std::vector<int64_t>& firsts) const {
    std::vector<float> means;
    for (size_t c = 0; c + 1 < firsts.size(); ++c) {
      means.push_back(range_mean(ranges_, firsts[c], firsts[c + 1], SerialPart{}));
    }
    return means;
  }

  // Lloyd's iterations on `centroids`; returns how many there were.
  int64_t lloyd(int64_t iterations, std::vector<float>& centroids) const {
    std::vector<int64_t> firsts, previous;
    for (int64_t done = 0; done < iterations; ++done) {
      assign(centroids, firsts);
      bool moved = false;
      for (size_t c = 0; c < centroids.size(); ++c) {
        const int64_t begin = firsts[c], end = firsts[c + 1];
        if (begin == end || (done > 0 && begin == previous[c] && end == previous[c + 1])) continue;
        const float updated = range_mean(ranges_, begin, end, SerialPart{});
        moved = moved || updated != centroids[c];
        centroids[c] = updated;
      }
      if (!moved) return done + 1;
      previous.swap(firsts);
    }
    return iterations;
  }

  double inertia(const std::vector<float>& centroids) const {
    std::vector<int64_t> firsts;
    assign(centroids, firsts);
    const int64_t groups = static_cast<int64_t>(before_.size()) - 1;
    std::vector<double> sums(at(groups));
    parallel_for(groups, threads_, [&](int, int64_t g) { sums[at(g)] = group_inertia(centroids, firsts, g); });
    double total = 0.0;
    for (const double sum : sums) total += sum;
    return total;
  }

 private:
  static constexpr int64_t kGroupValues = kKmeansBlock * kKmeansGroup;
  static constexpr int64_t kChunk = 16 * kGroupValues;
  static size_t at(int64_t i) { return static_cast<size_t>(i); }

  // First ranks of the clusters of these centroids, and N.
  void assign(const std::vector<float>& centroids, std::vector<int64_t>& firsts) const {
    firsts.resize(centroids.size() + 1);
    firsts[0] = 0;
    for (size_t c = 1; c < centroids.size(); ++c) {
      firsts[c] = first_above(sorted_, firsts[c - 1], size_, boundary(centroids[c - 1], centroids[c]));
    }
    firsts.back() = size_;
  }

  double group_inertia(const std::vector<float>& centroids, const std::vector<int64_t>& firsts, int64_t group) const {
    const int64_t begin = group * kGroupValues, end = std::min(begin + kGroupValues, size_);
    size_t c = static_cast<size_t>(std::upper_bound(firsts.begin(), firsts.end() - 1, begin) - firsts.begin()) - 1;
    double own[kKmeansBlock], lanes[kKmeansLanes] = {};
    int block = 0;
    for (int64_t i = begin; i < end; i += kKmeansBlock, ++block) {
      const int count = static_cast<int>(std::min<int64_t>(kKmeansBlock, end - i));
      for (int filled = 0; filled < count;) {
        while (firsts[c + 1] <= i + filled) ++c;
        const int until = static_cast<int>(std::min<int64_t>(count, firsts[c + 1] - i));
        std::fill(own + filled, own + until, static_cast<double>(centroids[c]));
        filled = until;
      }
      lanes[block % kKmeansLanes] += loops_.block_inertia(sorted_ + i, own, count);
    }
    return combine_lanes(lanes);
  }

  const float* sorted_;
  int64_t size_;
  const KmeansLoops& loops_;
  int threads_;
  std::vector<double> sums_, before_;
  KmeansRanges ranges_;
};

}  // namespace privkernels
