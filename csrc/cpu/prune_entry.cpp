// The CPU entry points of prune: checks, the instruction set, threads, and the passes of prune_mask.
#include <atomic>
#include <new>

#include "isa.h"
#include "parallel.h"
#include "prune_select.h"

namespace privkernels {
namespace {

const PruneVariant* variant(const char** reason) {
  const Isa* isa = chosen_isa(reason);
  if (isa == nullptr) return nullptr;
#if defined(PRIVKERNELS_X86)
  switch (*isa) {
    case Isa::kBase: return &base::prune_variant;
    case Isa::kAvx2: return &avx2::prune_variant;
    case Isa::kAvx512: return &avx512::prune_variant;
  }
#endif
  return &base::prune_variant;
}

Status no_memory() { return prune_invalid("prune has no memory for its scratch space"); }

// One call of prune_mask.
class MaskCall {
 public:
  MaskCall(const PruneMaskArgs& args, const PruneVariant& kernels, int threads)
      : args_(args),
        kernels_(kernels),
        tasks_(prune_tasks(args)),
        limit_(prune_key_limit(args.format, args.magnitude)) {
    for (const PruneTask& task : tasks_) total_ += task.chunk.size;
    const int64_t most = std::max<int64_t>(static_cast<int64_t>(tasks_.size()), 1);
    workers_ = static_cast<int>(std::min<int64_t>(std::max(threads, 1), most));
    counts_.resize(tasks_.size());
    task_found_.resize(tasks_.size());
  }

  Status run() {
    if (args_.keep == 0) return keep_none();
    const PruneGuess guess = PruneSample(args_, total_, workers_).guess(args_.keep, limit_);
    PruneBracket bracket = guess.bracket;
    Pass pass = scan(bracket);
    if (const Status status = not_a_number(); status.code != StatusCode::kOk) return status;
    int64_t rank = args_.keep - pass.above;
    if (rank > pass.inside && guess.tie_below) {
      bracket = {bracket.low - 1, bracket.low};
      pass = scan(bracket);
      rank = args_.keep - pass.above;
    }
    if (rank < 1 || rank > pass.inside || !(pass.collected || bracket.high - bracket.low == 1)) {
      bracket = refine(bracket, pass);
      pass = scan(bracket);
      rank = args_.keep - pass.above;
    }
    const bool one_key = bracket.high - bracket.low == 1;
    const uint64_t key = one_key ? bracket.low : prune_select(found_, bracket, rank);
    set_threshold(key);
    finish(key, rank, one_key || args_.output == PruneOutput::kInPlace, one_key);
    return {};
  }

 private:
  struct Pass {
    int64_t above = 0, inside = 0;
    bool collected = true;
  };

  // Keys and places of more entries than this are not collected by one worker.
  int64_t most_collected() const { return std::max(PruneSample::kLeastEntries, total_ / 8 / workers_); }

  Status keep_none() {
    scan({limit_, limit_});
    if (const Status status = not_a_number(); status.code != StatusCode::kOk) return status;
    set_threshold(limit_ - 1);
    if (args_.output == PruneOutput::kInPlace) emit_all(limit_, std::vector<int64_t>(tasks_.size(), 0));
    return {};
  }

  Pass scan(PruneBracket bracket) {
    found_.assign(static_cast<size_t>(workers_), {});
    const bool collecting = bracket.high - bracket.low > 1;
    const int64_t most = most_collected();
    std::vector<PruneFound> room(static_cast<size_t>(workers_));
    std::vector<char> overflowed(static_cast<size_t>(workers_), 0);
    for (PruneFound& one : room) {
      if (!collecting) break;
      one.keys.resize(kPruneChunk), one.indices.resize(kPruneChunk);
    }
    for (PruneFound& found : found_) {  // beforehand: threads must not throw
      if (!collecting) break;
      found.keys.reserve(static_cast<size_t>(most)), found.indices.reserve(static_cast<size_t>(most));
    }
    parallel_for(static_cast<int64_t>(tasks_.size()), workers_, [&](int worker, int64_t task) {
      const size_t w = static_cast<size_t>(worker), t = static_cast<size_t>(task);
      const bool collect = collecting && overflowed[w] == 0;
      PruneFound &mine = found_[w], &fresh = room[w];
      counts_[t] = kernels_.scan(args_, tasks_[t].chunk, bracket, collect ? fresh.keys.data() : nullptr,
                                 collect ? fresh.indices.data() : nullptr);
      if (!collect) return;
      const size_t begin = mine.keys.size(), count = static_cast<size_t>(counts_[t].inside);
      if (begin + count > static_cast<size_t>(most)) {
        overflowed[w] = 1;
        return;
      }
      mine.keys.insert(mine.keys.end(), fresh.keys.begin(), fresh.keys.begin() + static_cast<std::ptrdiff_t>(count));
      mine.indices.insert(mine.indices.end(), fresh.indices.begin(),
                          fresh.indices.begin() + static_cast<std::ptrdiff_t>(count));
      task_found_[t] = {worker, begin, begin + count};
    });
    Pass pass;
    for (const PruneCounts& counts : counts_) pass.above += counts.above, pass.inside += counts.inside;
    for (const char one : overflowed) pass.collected = pass.collected && one == 0;
    return pass;
  }

  Status not_a_number() const {
    for (size_t t = 0; t < tasks_.size(); ++t) {
      if (counts_[t].nan < 0) continue;
      return {StatusCode::kNonFinite, tasks_[t].segment, tasks_[t].first + counts_[t].nan, ""};
    }
    return {};
  }

  // A bracket that holds the keep-th largest, and whose keys are few enough to be collected, or one.
  PruneBracket refine(PruneBracket bracket, const Pass& pass) {
    int64_t rank = args_.keep;  // within the bracket
    if (args_.keep <= pass.above) {
      bracket = {bracket.high, limit_};
    } else if (args_.keep > pass.above + pass.inside) {
      rank -= pass.above + pass.inside;
      bracket = {0, bracket.low};
    } else {
      rank -= pass.above;
    }
    std::vector<std::vector<int64_t>> histograms(static_cast<size_t>(workers_), std::vector<int64_t>(kPruneBins));
    while (bracket.high - bracket.low > 1) {
      const int shift = prune_shift(bracket);
      for (std::vector<int64_t>& histogram : histograms) std::fill(histogram.begin(), histogram.end(), 0);
      parallel_for(static_cast<int64_t>(tasks_.size()), workers_, [&](int worker, int64_t task) {
        kernels_.count(args_, tasks_[static_cast<size_t>(task)].chunk, bracket, shift,
                       histograms[static_cast<size_t>(worker)].data());
      });
      for (size_t w = 1; w < histograms.size(); ++w) {
        for (size_t bin = 0; bin < histograms[0].size(); ++bin) histograms[0][bin] += histograms[w][bin];
      }
      const std::vector<int64_t>& all = histograms[0];
      const uint64_t before = bracket.low;
      bracket = prune_bin(all, bracket, shift, rank);
      if (all[static_cast<size_t>((bracket.low - before) >> shift)] <= most_collected()) break;
    }
    return bracket;
  }

  void set_threshold(uint64_t key) const {
    if (args_.threshold == nullptr) return;
    uint64_t bits = 0;
    switch (prune_element_bytes(args_.format)) {
      case 8: bits = bits_of_key<uint64_t>(args_.magnitude, key); break;
      case 4: bits = bits_of_key<uint32_t>(args_.magnitude, static_cast<uint32_t>(key)); break;
      default: bits = bits_of_key<uint16_t>(args_.magnitude, static_cast<uint16_t>(key)); break;
    }
    std::memcpy(args_.threshold, &bits, static_cast<size_t>(prune_element_bytes(args_.format)));
  }

  int64_t ties_of(size_t task, uint64_t key, bool one_key) const {
    if (one_key) return counts_[task].inside;
    const PruneTaskFound& range = task_found_[task];
    const PruneFound& found = found_[static_cast<size_t>(range.worker)];
    return std::count(found.keys.begin() + static_cast<std::ptrdiff_t>(range.begin),
                      found.keys.begin() + static_cast<std::ptrdiff_t>(range.end), key);
  }

  // Shares the first `rank` ties out to the tasks in order, and writes what the scan left open.
  void finish(uint64_t key, int64_t rank, bool again, bool one_key) {
    std::vector<int64_t> ties(tasks_.size());
    for (size_t t = 0; t < tasks_.size(); ++t) {
      ties[t] = std::min(rank, ties_of(t, key, one_key));
      rank -= ties[t];
    }
    if (again) return emit_all(key, ties);
    parallel_for(static_cast<int64_t>(tasks_.size()), workers_, [&](int, int64_t task) {
      const size_t t = static_cast<size_t>(task);
      add_found(tasks_[t].chunk, task_found_[t], key, ties[t]);
    });
  }

  void emit_all(uint64_t key, const std::vector<int64_t>& ties) {
    parallel_for(static_cast<int64_t>(tasks_.size()), workers_, [&](int, int64_t task) {
      kernels_.emit(args_, tasks_[static_cast<size_t>(task)].chunk, key, ties[static_cast<size_t>(task)]);
    });
  }

  // Keeps the collected entries above the key and the first ties.
  void add_found(const PruneChunk& chunk, const PruneTaskFound& range, uint64_t key, int64_t ties) const {
    const PruneFound& found = found_[static_cast<size_t>(range.worker)];
    const int64_t bytes = prune_element_bytes(args_.format);
    // Half of what was collected is kept, in no order that a processor could foresee: so no branch on it.
    for (size_t i = range.begin; i < range.end; ++i) {
      const bool tie = found.keys[i] == key;
      const bool kept = (found.keys[i] > key) | (tie & (ties > 0));
      ties -= tie;
      const int64_t at = found.indices[i];
      if (args_.output == PruneOutput::kBools) {
        chunk.output[at] = static_cast<char>(kept);
      } else if (args_.output == PruneOutput::kBits) {
        chunk.output[at / 8] = static_cast<char>(chunk.output[at / 8] | (kept << at % 8));
      } else if (kept) {
        std::memcpy(chunk.output + at * bytes, chunk.scores + at * chunk.stride * bytes, static_cast<size_t>(bytes));
      }
    }
  }

  const PruneMaskArgs& args_;
  const PruneVariant& kernels_;
  std::vector<PruneTask> tasks_;
  uint64_t limit_;
  int64_t total_ = 0;
  int workers_ = 1;
  std::vector<PruneCounts> counts_;         // of each task, by the last scan
  std::vector<PruneFound> found_;           // of each worker
  std::vector<PruneTaskFound> task_found_;  // of each task
};

// Calls body(begin, end) for pieces of [0, size); returns the lowest that it gives, of those that are not -1.
template <class Body>
int64_t lowest_failure(int64_t size, int64_t first_piece, int64_t piece, int threads, const Body& body) {
  std::atomic<int64_t> lowest{INT64_MAX};
  const int64_t skipped = piece - first_piece;
  const int64_t pieces = (size + skipped + piece - 1) / piece;
  parallel_for(pieces, threads, [&](int, int64_t i) {
    const int64_t begin = std::max<int64_t>(i * piece - skipped, 0), end = std::min((i + 1) * piece - skipped, size);
    const int64_t failed = begin < end ? body(begin, end) : -1;
    int64_t before = lowest.load();
    while (failed >= 0 && failed < before && !lowest.compare_exchange_weak(before, failed)) {
    }
  });
  return lowest.load() == INT64_MAX ? -1 : lowest.load();
}

}  // namespace

Status prune_mask_cpu(const PruneMaskArgs& args, int threads) {
  if (const Status status = check_prune_mask(args); status.code != StatusCode::kOk) return status;
  const char* reason = "";
  const PruneVariant* kernels = variant(&reason);
  if (kernels == nullptr) return prune_invalid(reason);
  try {
    return MaskCall(args, *kernels, threads).run();
  } catch (const std::bad_alloc&) {
    return no_memory();
  }
}

Status prune_pattern_cpu(const PrunePatternArgs& args, int threads) {
  if (const Status status = check_prune_pattern(args); status.code != StatusCode::kOk) return status;
  const char* reason = "";
  const PruneVariant* kernels = variant(&reason);
  if (kernels == nullptr) return prune_invalid(reason);
  // In this order, so that sizes beside a 0 cannot overflow.
  const int64_t columns = (args.length + args.m - 1) / args.m * args.outer * args.inner;
  constexpr int64_t kPiece = 8192;
  const int64_t failed = lowest_failure(columns, kPiece, kPiece, threads,
                                        [&](int64_t begin, int64_t end) { return kernels->pattern(args, begin, end); });
  return failed < 0 ? Status{} : Status{StatusCode::kNonFinite, -1, failed, ""};
}

Status prune_random_cpu(const PruneRandomArgs& args, int threads) {
  if (const Status status = check_prune_random(args); status.code != StatusCode::kOk) return status;
  const char* reason = "";
  const PruneVariant* kernels = variant(&reason);
  if (kernels == nullptr) return prune_invalid(reason);
  // Pieces begin where groups of elements begin, so that no block of random bits is computed twice.
  constexpr int64_t kPiece = 128 * kSpreadGroup;
  const int64_t first = kPiece - static_cast<int64_t>(args.first_element % kSpreadGroup);
  const int64_t failed = lowest_failure(args.size, first, kPiece, threads,
                                        [&](int64_t begin, int64_t end) { return kernels->random(args, begin, end); });
  return failed < 0 ? Status{} : Status{StatusCode::kInvalidParameter, -1, failed, ""};
}

Status prune_apply_cpu(const PruneApplyArgs& args, int threads) {
  if (const Status status = check_prune_apply(args); status.code != StatusCode::kOk) return status;
  const char* reason = "";
  const PruneVariant* kernels = variant(&reason);
  if (kernels == nullptr) return prune_invalid(reason);
  lowest_failure(args.size, kPruneChunk, kPruneChunk, threads, [&](int64_t begin, int64_t end) {
    kernels->apply(args, begin, end);
    return int64_t{-1};
  });
  return {};
}

}  // namespace privkernels
