// The CPU entry point of em_select: checks, chooses the instruction set, and splits the work over threads, by
// segments where they are short and within a segment where it is long.
#include <limits>
#include <new>
#include <vector>

#include "em_select_variant.h"
#include "isa.h"
#include "parallel.h"

namespace privkernels {
namespace {

constexpr int64_t kTaskBlocks = 256;                   // of one segment, for one thread at a time
constexpr int64_t kTask = kTaskBlocks * kSelectBlock;  // candidates
constexpr int64_t kLongSegment = 4 * kTask;            // from here on a segment is split over the threads

EmSelectVariant variant(Isa isa) {
#if defined(PRIVKERNELS_X86)
  switch (isa) {
    case Isa::kBase: return base::em_select_variant();
    case Isa::kAvx2: return avx2::em_select_variant();
    case Isa::kAvx512: return avx512::em_select_variant();
  }
#endif
  (void)isa;
  return base::em_select_variant();
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What one worker needs for segments of up to `length` candidates.
struct Workspace {
  Workspace(int64_t length, bool copies, bool is_double)
      : largest(static_cast<size_t>(ceil_div(length, kTask))),
        accepted(largest.size()),
        totals(static_cast<size_t>(ceil_div(length, kSelectBlock))),
        copy(copies ? static_cast<size_t>(length) * (is_double ? sizeof(double) : sizeof(float)) : 0) {}
  std::vector<SelectLargest> largest;  // per task, as the next one
  std::vector<Accepted> accepted;
  std::vector<Wide> totals;         // per block
  std::vector<unsigned char> copy;  // of the scores, where they are strided or candidates are removed
};

// Calls body(task) for every task of a segment of `count` candidates.
template <class Body>
void for_tasks(int64_t count, int threads, const Body& body) {
  const int64_t tasks = ceil_div(count, kTask);
  if (threads > 1) return parallel_for(tasks, threads, [&](int, int64_t task) { body(task); });
  for (int64_t task = 0; task < tasks; ++task) body(task);
}

template <class T>
void copy_scores(const T* from, int64_t stride, int64_t begin, int64_t end, void* to) {
  T* out = static_cast<T*>(to);
  for (int64_t i = begin; i < end; ++i) out[i] = from[i * stride];
}

template <class T>
int64_t first_unusable(const void* scores, int64_t count) {
  const T* at = static_cast<const T*>(scores);
  for (int64_t i = 0; i < count; ++i) {
    const double value = static_cast<double>(at[i]);
    if (!(value <= kLargestScore && value >= -kLargestScore)) return i;
  }
  return -1;
}

SelectLargest largest_of(const EmSelectVariant& call, const SelectScores& scores, Workspace& space, int threads) {
  for_tasks(scores.count, threads, [&](int64_t task) {
    const int64_t end = std::min((task + 1) * kTask, scores.count);
    space.largest[static_cast<size_t>(task)] = call.largest(scores, task * kTask, end);
  });
  SelectLargest result = space.largest[0];
  for (int64_t task = 1; task < ceil_div(scores.count, kTask); ++task) {
    const SelectLargest& part = space.largest[static_cast<size_t>(task)];
    result.value = larger(part.value, result.value);
    result.usable = result.usable & part.usable;
  }
  return result;
}

int64_t draw_exponential(const EmSelectVariant& call, const SelectScores& scores, Workspace& space, int threads,
                         const SelectAddress& address) {
  const int64_t blocks = ceil_div(scores.count, kSelectBlock);
  for_tasks(scores.count, threads, [&](int64_t task) {
    call.totals(scores, task * kTaskBlocks, std::min((task + 1) * kTaskBlocks, blocks), space.totals.data());
  });
  Wide total = 0;
  for (int64_t block = 0; block < blocks; ++block) total += space.totals[static_cast<size_t>(block)];
  const Wide target = scale_to_wide(select_bits(address.key, address.segment, address.peel), total);
  // Every block is looked at, whichever holds the target.
  Wide cumulative = 0, before = 0;
  int64_t chosen = 0;
  for (int64_t block = 0; block < blocks; ++block) {
    cumulative += space.totals[static_cast<size_t>(block)];
    const Wide passed = -static_cast<Wide>(cumulative <= target);
    before = (cumulative & passed) | (before & ~passed);
    chosen += static_cast<int64_t>(passed & 1);
  }
  return call.locate(scores, chosen, target - before);
}

int64_t draw_permute_and_flip(const EmSelectVariant& call, const SelectScores& scores, Workspace& space, int threads,
                              const SelectAddress& address) {
  const int64_t blocks = ceil_div(scores.count, kSelectBlock);
  for_tasks(scores.count, threads, [&](int64_t task) {
    space.accepted[static_cast<size_t>(task)] =
        call.permute(scores, task * kTaskBlocks, std::min((task + 1) * kTaskBlocks, blocks), address);
  });
  Accepted best = space.accepted[0];
  for (int64_t task = 1; task < ceil_div(scores.count, kTask); ++task) {
    const Accepted& other = space.accepted[static_cast<size_t>(task)];
    const bool better = (other.index >= 0) & ((best.index < 0) | (other.priority < best.priority));
    best = better ? other : best;
  }
  return best.index;
}

// All draws of one segment; returns the first candidate whose score is not usable, or -1.
int64_t draw_segment(const EmSelectArgs& args, const EmSelectVariant& call, int64_t segment, Workspace& space,
                     int threads) {
  const int64_t count = select_length(args, segment);
  const int64_t start = args.offsets ? args.offsets[segment] * args.candidate_stride : segment * args.segment_stride;
  SelectScores scores{nullptr, count, args.is_double, 0, args.multiplier * kLog2E};
  const auto place = [&](auto* from) {
    scores.at = from + start;
    if (space.copy.empty()) return;
    for_tasks(count, threads, [&](int64_t task) {
      copy_scores(from + start, args.candidate_stride, task * kTask, std::min((task + 1) * kTask, count),
                  space.copy.data());
    });
    scores.at = space.copy.data();
  };
  args.is_double ? place(static_cast<const double*>(args.scores)) : place(static_cast<const float*>(args.scores));

  const uint64_t global = args.first_segment + static_cast<uint64_t>(segment);
  for (int64_t peel = 0; peel < args.k; ++peel) {
    const SelectLargest found = largest_of(call, scores, space, threads);
    if (peel == 0 && !found.usable) {
      return args.is_double ? first_unusable<double>(scores.at, count) : first_unusable<float>(scores.at, count);
    }
    scores.largest = found.value;
    const SelectAddress address{args.key, static_cast<uint32_t>(global), static_cast<uint32_t>(peel)};
    const int64_t index = args.permute_and_flip ? draw_permute_and_flip(call, scores, space, threads, address)
                                                : draw_exponential(call, scores, space, threads, address);
    args.index[segment * args.k + peel] = index;
    if (peel + 1 == args.k) break;
    if (args.is_double) {
      reinterpret_cast<double*>(space.copy.data())[index] = -std::numeric_limits<double>::infinity();
    } else {
      reinterpret_cast<float*>(space.copy.data())[index] = -std::numeric_limits<float>::infinity();
    }
  }
  return -1;
}

struct Lengths {
  int64_t shortest = std::numeric_limits<int64_t>::max(), longest = 0, total = 0;
};

Lengths lengths_of(const EmSelectArgs& args) {
  Lengths lengths;
  for (int64_t segment = 0; segment < args.num_segments; ++segment) {
    const int64_t length = select_length(args, segment);
    lengths.shortest = std::min(lengths.shortest, length);
    lengths.longest = std::max(lengths.longest, length);
    lengths.total += length;
  }
  return lengths;
}

}  // namespace

Status em_select_cpu(const EmSelectArgs& args, int threads) {
  if (const Status status = check_em_select(args); status.code != StatusCode::kOk) return status;
  if (args.num_segments == 0) return {};
  const char* reason = "";
  const Isa* isa = chosen_isa(&reason);
  if (isa == nullptr) return {StatusCode::kInvalidArgument, -1, -1, reason};
  const EmSelectVariant call = variant(*isa);
  const Lengths lengths = lengths_of(args);
  if (lengths.shortest < args.k || lengths.longest > (int64_t{1} << 32)) {
    return {StatusCode::kInvalidArgument, -1, -1, "em_select needs k to 2^32 candidates in every segment"};
  }
  const bool copies = args.k > 1 || args.candidate_stride != 1;
  std::vector<int64_t> failures;  // per segment in the order of `longs`, then per worker: see below
  std::vector<int64_t> longs;
  std::vector<Workspace> spaces;
  // Short segments: tasks of about kTask candidates.
  const int64_t per_task = std::max<int64_t>(1, kTask / std::max<int64_t>(1, lengths.total / args.num_segments));
  const int64_t tasks = ceil_div(args.num_segments, per_task);
  const int workers = static_cast<int>(std::min<int64_t>(std::max(threads, 1), tasks));
  int64_t longest_short = 0;
  try {
    for (int64_t segment = 0; segment < args.num_segments; ++segment) {
      const int64_t length = select_length(args, segment);
      if (length >= kLongSegment) {
        longs.push_back(segment);
      } else {
        longest_short = std::max(longest_short, length);
      }
    }
    failures.resize(static_cast<size_t>(2 * workers), -1);
    for (int worker = 0; worker < workers; ++worker) {
      spaces.emplace_back(worker == 0 ? lengths.longest : longest_short, copies, args.is_double);
    }
  } catch (const std::bad_alloc&) {
    return {StatusCode::kInvalidArgument, -1, -1, "em_select has no memory for its scratch space"};
  }

  Status status;
  const auto note = [&](int64_t segment, int64_t element) {
    if (status.code == StatusCode::kOk || segment < status.member) {
      status = {StatusCode::kNonFinite, segment, element, ""};
    }
  };
  for (const int64_t segment : longs) {
    const int64_t bad = draw_segment(args, call, segment, spaces[0], threads);
    if (bad >= 0) note(segment, bad);
  }
  parallel_for(tasks, workers, [&](int worker, int64_t task) {
    int64_t* failure = failures.data() + 2 * worker;
    const int64_t end = std::min((task + 1) * per_task, args.num_segments);
    for (int64_t segment = task * per_task; segment < end; ++segment) {
      if (select_length(args, segment) >= kLongSegment) continue;
      const int64_t bad = draw_segment(args, call, segment, spaces[static_cast<size_t>(worker)], 1);
      // A worker's segments ascend, so the first failure it meets is its lowest.
      if (bad >= 0 && failure[0] < 0) failure[0] = segment, failure[1] = bad;
    }
  });
  for (int worker = 0; worker < workers; ++worker) {
    const int64_t* failure = failures.data() + 2 * worker;
    if (failure[0] >= 0) note(failure[0], failure[1]);
  }
  return status;
}

}  // namespace privkernels
