// How prune_mask finds its threshold: an interval from a sample, one pass that counts and collects what lies inside,
// and a selection among that. Host code, and none of it is hot: the passes are the variants'.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#include "parallel.h"
#include "prune_variant.h"

namespace privkernels {

struct PruneTask {
  int64_t segment;
  int64_t first;  // within the segment
  PruneChunk chunk;
};

inline std::vector<PruneTask> prune_tasks(const PruneMaskArgs& args) {
  const int64_t bytes = prune_element_bytes(args.format);
  std::vector<PruneTask> tasks;
  for (int64_t s = 0; s < args.num_segments; ++s) {
    const PruneSegment& segment = args.segments[s];
    for (int64_t first = 0; first < segment.size; first += kPruneChunk) {
      const char* scores = static_cast<const char*>(segment.scores) + first * segment.stride * bytes;
      char* output = static_cast<char*>(segment.output);
      if (args.output == PruneOutput::kBools) output += first;
      if (args.output == PruneOutput::kBits) output += first / 8;
      if (args.output == PruneOutput::kValues || args.output == PruneOutput::kInPlace) output += first * bytes;
      const int64_t size = std::min(kPruneChunk, segment.size - first);
      tasks.push_back({s, first, {scores, segment.stride, size, output}});
    }
  }
  return tasks;
}

template <class Bits>
uint64_t prune_key_of(const PruneMaskArgs& args, const char* at) {
  Bits bits;
  std::memcpy(&bits, at, sizeof bits);
  return args.magnitude ? order_key<true>(bits) : order_key<false>(bits);
}

inline uint64_t prune_key_at(const PruneMaskArgs& args, const PruneSegment& segment, int64_t i) {
  const int64_t bytes = prune_element_bytes(args.format);
  const char* at = static_cast<const char*>(segment.scores) + i * segment.stride * bytes;
  switch (bytes) {
    case 8: return prune_key_of<uint64_t>(args, at);
    case 4: return prune_key_of<uint32_t>(args, at);
    default: return prune_key_of<uint16_t>(args, at);
  }
}

struct PruneGuess {
  PruneBracket bracket;
  bool tie_below;  // many keys are bracket.low - 1, which may be the one that is sought
};

// Runs of neighbours, because a run costs one cache miss; at places that are spread by a fixed hash, because rows of a
// model have round lengths and evenly spaced places would all lie in a few columns.
class PruneSample {
 public:
  static constexpr int64_t kRun = 16, kMostRuns = 4096, kLeastEntries = 65536, kSpacing = 512;

  PruneSample(const PruneMaskArgs& args, int64_t total, int threads) : total_(total) {
    if (total < kLeastEntries) return;
    const int64_t runs = std::min(kMostRuns, total / kSpacing), spacing = total / runs;
    std::vector<Run> places;
    int64_t s = 0, begin = 0, taken = 0;  // the segment that holds the place, and the number of its first entry
    for (int64_t run = 0; run < runs; ++run) {
      uint64_t hash = (static_cast<uint64_t>(run) + 1) * 0x9e3779b97f4a7c15u;
      hash = (hash ^ (hash >> 32)) * 0xd6e8feb86659fd93u;
      hash ^= hash >> 32;
      const int64_t place = run * spacing + static_cast<int64_t>(hash % static_cast<uint64_t>(spacing - kRun));
      while (place >= begin + args.segments[s].size) begin += args.segments[s++].size;
      const int64_t count = std::min(kRun, begin + args.segments[s].size - place);
      places.push_back({s, place - begin, count, taken});
      taken += count;
      ends_.push_back(static_cast<size_t>(taken));
    }
    keys_.resize(static_cast<size_t>(taken));
    constexpr int64_t kTogether = 128;  // runs; reading them is waiting for the memory
    parallel_for((runs + kTogether - 1) / kTogether, threads, [&](int, int64_t task) {
      for (int64_t run = task * kTogether; run < std::min(runs, (task + 1) * kTogether); ++run) {
        const Run& one = places[static_cast<size_t>(run)];
        for (int64_t i = 0; i < one.count; ++i) {
          keys_[static_cast<size_t>(one.at + i)] = prune_key_at(args, args.segments[one.segment], one.first + i);
        }
      }
    });
  }

  // Where the keep-th largest of all keys probably lies; everything where there is no sample.
  PruneGuess guess(int64_t keep, uint64_t limit) const {
    const PruneGuess everything{{0, limit}, false};
    if (keys_.empty() || keep == 0) return everything;
    const double size = static_cast<double>(keys_.size());
    const double rank = static_cast<double>(keep) / static_cast<double>(total_) * size;
    std::vector<uint64_t> sorted(keys_);
    // The key of that rank from above; `sorted` is in order at `from` and `to` already.
    const auto at = [&](double place, std::ptrdiff_t from, std::ptrdiff_t to) {
      const std::ptrdiff_t nth = index(place);
      std::nth_element(sorted.begin() + from, sorted.begin() + nth, sorted.begin() + to, std::greater<uint64_t>());
      return sorted[static_cast<size_t>(nth)];
    };
    const std::ptrdiff_t middle = index(rank), end = static_cast<std::ptrdiff_t>(sorted.size());
    const double margin = 4 * deviation(at(rank, 0, end)) + 4;
    const uint64_t high = rank - margin < 0 ? limit : std::min(at(rank - margin, 0, middle + 1) + 1, limit);
    const uint64_t low = rank + margin > size - 1 ? 0 : at(rank + margin, middle, end);
    if (low >= high) return everything;
    // Too many ties to be collected, as where a model that was pruned is pruned again: they are left below.
    const bool heavy = high - low > 1 && std::count(keys_.begin(), keys_.end(), low) > end / 16;
    return {{low + heavy, high}, heavy};
  }

 private:
  struct Run {
    int64_t segment, first, count, at;  // `count` entries of the segment from `first`, to keys_ from `at`
  };

  std::ptrdiff_t index(double place) const {
    return static_cast<std::ptrdiff_t>(std::min(std::max(place, 0.0), static_cast<double>(keys_.size()) - 1));
  }

  // Of the number of sampled keys from `key` on, estimated from the runs, whose entries may be alike.
  double deviation(uint64_t key) const {
    std::vector<double> counts;
    double mean = 0;
    size_t first = 0;
    for (const size_t end : ends_) {
      double count = 0;
      for (; first < end; ++first) count += keys_[first] >= key;
      counts.push_back(count);
      mean += count / static_cast<double>(ends_.size());
    }
    double sum = 0;
    for (const double count : counts) sum += (count - mean) * (count - mean);
    return std::sqrt(sum);
  }

  int64_t total_;
  std::vector<uint64_t> keys_;
  std::vector<size_t> ends_;
};

// The keys and places that a worker collected, and those of one task among them.
struct PruneFound {
  std::vector<uint64_t> keys;
  std::vector<uint32_t> indices;
};

struct PruneTaskFound {
  int worker = 0;
  size_t begin = 0, end = 0;
};

constexpr int kPruneBins = 2048;

// The number of low bits of a key that its bin among at most kPruneBins leaves open.
inline int prune_shift(PruneBracket bracket) {
  int shift = 0;
  while ((bracket.high - bracket.low - 1) >> shift >= kPruneBins) ++shift;
  return shift;
}

// The bin that holds the rank-th largest (1 is the largest); rank becomes the one within the bin.
inline PruneBracket prune_bin(const std::vector<int64_t>& histogram, PruneBracket bracket, int shift, int64_t& rank) {
  int64_t bin = kPruneBins - 1;
  for (; bin > 0 && rank > histogram[static_cast<size_t>(bin)]; --bin) rank -= histogram[static_cast<size_t>(bin)];
  const uint64_t low = bracket.low + (static_cast<uint64_t>(bin) << shift);
  const uint64_t width = uint64_t{1} << shift;  // the last bin may end beyond 2^64
  return {low, bracket.high - low > width ? low + width : bracket.high};
}

// The rank-th largest of all keys found, which lie inside the bracket; rank becomes its rank among its equals.
inline uint64_t prune_select(const std::vector<PruneFound>& found, PruneBracket bracket, int64_t& rank) {
  std::vector<int64_t> histogram(kPruneBins);
  while (bracket.high - bracket.low > 1) {
    const int shift = prune_shift(bracket);
    const uint64_t width = bracket.high - bracket.low;
    std::fill(histogram.begin(), histogram.end(), 0);
    for (const PruneFound& of_worker : found) {
      for (const uint64_t key : of_worker.keys) {
        if (key - bracket.low < width) ++histogram[(key - bracket.low) >> shift];
      }
    }
    bracket = prune_bin(histogram, bracket, shift, rank);
  }
  return bracket.low;
}

}  // namespace privkernels
