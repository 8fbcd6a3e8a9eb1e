// Sorted values, the sums of any range of them, and Lloyd's steps on them: a cluster is a range of ranks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kmeans1d_variant.h"
#include "parallel.h"

namespace privkernels {

class SortedValues {
 public:
  SortedValues(const float* sorted, int64_t size, const KmeansLoops& loops, int threads)
      : sorted_(sorted), size_(size), loops_(loops), threads_(threads) {
    const int64_t blocks = (size + kKmeansBlock - 1) / kKmeansBlock;
    sums_.resize(at(blocks));
    parallel_for((size + kChunk - 1) / kChunk, threads, [&](int, int64_t chunk) {
      const int64_t begin = chunk * kChunk, count = std::min(kChunk, size - begin);
      loops.block_sums(sorted + begin, count, sums_.data() + begin / kKmeansBlock);
    });
    // Outwards from the group that holds zero, so that sums on either side are of numbers of one sign, and none
    // holds a number larger than those it is used for.
    const int64_t groups = (blocks + kKmeansGroup - 1) / kKmeansGroup;
    const int64_t negative = std::lower_bound(sorted, sorted + size - 1, 0.0f) - sorted;
    middle_ = negative / (kKmeansBlock * kKmeansGroup);
    middle_sum_ = group_sum(middle_, 0, kKmeansGroup);
    before_.resize(at(groups + 1));
    for (int64_t g = middle_ + 1; g < groups; ++g) before_[at(g + 1)] = before_[at(g)] + group_sum(g, 0, kKmeansGroup);
    for (int64_t g = middle_ - 1; g >= 0; --g) before_[at(g)] = before_[at(g + 1)] - group_sum(g, 0, kKmeansGroup);
  }

  int64_t size() const { return size_; }
  const float* data() const { return sorted_; }

  // The mean of ranks [begin, end), which is not empty.
  float mean(int64_t begin, int64_t end) const {
    const double exact = range_sum(begin, end) / static_cast<double>(end - begin);
    const float rounded = static_cast<float>(exact) + 0.0f;
    return std::min(std::max(rounded, sorted_[begin]), sorted_[end - 1]);
  }

  // First ranks of the clusters of these centroids, and N.
  void assign(const std::vector<float>& centroids, std::vector<int64_t>& firsts) const {
    firsts.resize(centroids.size() + 1);
    firsts[0] = 0;
    for (size_t c = 1; c < centroids.size(); ++c) {
      const float limit = boundary(centroids[c - 1], centroids[c]);
      firsts[c] = std::upper_bound(sorted_ + firsts[c - 1], sorted_ + size_, limit) - sorted_;
    }
    firsts.back() = size_;
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
        const float updated = mean(begin, end);
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

  // Blocks [low, high) of a group, as many as there are.
  double group_sum(int64_t group, int low, int high) const {
    const int64_t first = group * kKmeansGroup, left = static_cast<int64_t>(sums_.size()) - first;
    return part_sum(sums_.data() + first, low, static_cast<int>(std::min<int64_t>(high, left)));
  }

  double block_part(int64_t block, int low, int high) const {
    return part_sum(sorted_ + block * kKmeansBlock, low, high);
  }

  double range_sum(int64_t begin, int64_t end) const {
    const int64_t first = begin / kKmeansBlock, last = (end - 1) / kKmeansBlock;
    const int low = static_cast<int>(begin % kKmeansBlock), high = static_cast<int>((end - 1) % kKmeansBlock) + 1;
    if (first == last) return block_part(first, low, high);
    const double ends = block_part(first, low, kKmeansBlock) + block_part(last, 0, high);
    const int64_t left = first / kKmeansGroup, right = last / kKmeansGroup;
    const int after = static_cast<int>(first % kKmeansGroup) + 1, until = static_cast<int>(last % kKmeansGroup);
    if (left == right) return ends + group_sum(left, after, until);
    const double inner = group_sum(left, after, kKmeansGroup) + group_sum(right, 0, until);
    double between = before_[at(right)] - before_[at(left + 1)];
    if (left < middle_ && middle_ < right) between += middle_sum_;
    return between + (inner + ends);
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
  std::vector<double> sums_;  // of each block
  int64_t middle_;            // the group that holds zero, or the nearest to it
  double middle_sum_;
  std::vector<double> before_;  // of the groups before this one, from the middle one, which is not counted
};

}  // namespace privkernels
