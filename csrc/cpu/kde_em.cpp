// kde_em for one instruction set. This file is compiled once for each, in a namespace of its own
// (PK_ISA), with PK_LANES floats to a vector. No standard library here: see core/platform.h.
#include "kde_em_nodes.h"
#include "kde_em_trial.h"

namespace privkernels {
namespace PK_ISA {
namespace {

// --- the scores ---

// Those sums at every grid point; returns the largest per lane.
template <bool kSeries>
FloatLanes score_all(const KdeEmArgs& args, const KdeEmPlan& plan, const Columns& columns, float* scores) {
  FloatLanes best = FloatLanes{};
  for (int64_t k = 0; k < args.grid_points; ++k) {
    const FloatLanes r = grid_point(columns.lo, columns.hi, columns.step, k);
    const FloatLanes total = score_sum<kSeries>(columns, args.num_members, plan.kernel, r);
    store_lanes(scores + k * kLanes, total);
    best = larger(best, total);
  }
  return best;
}

// --- draws ---

// Elements picked out of a tile, so that vectors are full of those that still need work.
struct Chosen {
  int at[kTile];  // in the tile
  int count = 0;
};

struct Draws {
  Draws(const KdeEmArgs& args, const KdeEmPlan& plan, const Room& room, const Tile& tile)
      : args(args), plan(plan), room(room), tile(tile) {}

  const KdeEmArgs& args;
  const KdeEmPlan& plan;
  const Room& room;
  const Tile& tile;
  // What the first trial left behind, for those to come.
  float best[kTile];
  int32_t total[kTile], shift[kTile], nodes[kTile];
  int32_t index[kTile];
  uint32_t words[16][kTile];  // of four trials

  uint64_t element(int at) const {
    return args.first_element + static_cast<uint64_t>(tile.first + (at < tile.count ? at : tile.count - 1));
  }
};

void keep(Draws& draws, int at, const Envelope& envelope) {
  store_lanes(draws.best + at, envelope.best);
  __builtin_memcpy(draws.total + at, &envelope.total, sizeof envelope.total);
  __builtin_memcpy(draws.shift + at, &envelope.shape.shift, sizeof envelope.shape.shift);
  __builtin_memcpy(draws.nodes + at, &envelope.shape.nodes, sizeof envelope.shape.nodes);
}

// Columns of the elements chosen[from ...], the last one again where a vector is not full.
Columns pick(const Draws& draws, const int* at) {
  const Tile& tile = draws.tile;
  Columns columns{draws.room.chosen_members, kLanes, {}, {}, {}, {}};
  for (int64_t i = 0; i < draws.args.num_members; ++i) {
    const float* row = tile.members + i * kTile;
    float* out = draws.room.chosen_members + i * kLanes;
    for (int lane = 0; lane < kLanes; ++lane) out[lane] = row[at[lane]];
  }
  float grid[4][kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    grid[0][lane] = tile.lo[at[lane]], grid[1][lane] = tile.hi[at[lane]];
    grid[2][lane] = tile.step[at[lane]], grid[3][lane] = tile.inverse[at[lane]];
  }
  columns.lo = load(grid[0]), columns.hi = load(grid[1]), columns.step = load(grid[2]), columns.inverse = load(grid[3]);
  return columns;
}

Envelope pick_envelope(const Draws& draws, const int* at) {
  float best[kLanes];
  int32_t total[kLanes], shift[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    best[lane] = draws.best[at[lane]], total[lane] = draws.total[at[lane]], shift[lane] = draws.shift[at[lane]];
  }
  Envelope envelope{};
  __builtin_memcpy(&envelope.best, best, sizeof best);
  __builtin_memcpy(&envelope.total, total, sizeof total);
  __builtin_memcpy(&envelope.shape.shift, shift, sizeof shift);
  return envelope;
}

Hit pick_hit(const Draws& draws, const int* at, IntLanes targets) {
  int32_t target[kLanes];
  __builtin_memcpy(target, &targets, sizeof target);
  HitLanes hit;
  for (int lane = 0; lane < kLanes; ++lane) {
    const float* nodes = draws.room.nodes + at[lane];
    hit.put(lane, bisect_node(nodes, kTile, draws.nodes[at[lane]], target[lane]), nodes, kTile);
  }
  return hit.together();
}

template <class Body>
PK_HD void in_vectors(const Draws& draws, const Chosen& chosen, const Body& body) {
  for (int from = 0; from < chosen.count; from += kLanes) {
    int at[kLanes];
    uint64_t elements[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      at[lane] = chosen.at[from + lane < chosen.count ? from + lane : chosen.count - 1];
      elements[lane] = draws.element(at[lane]);
    }
    body(at, elements, chosen.count - from < kLanes ? chosen.count - from : kLanes);
  }
}

// A trial for every chosen element; those that are rejected stay chosen.
template <bool kSeries>
void try_chosen(Draws& draws, Chosen& chosen, int trial) {
  const int used = (trial - 1) % 4;
  if (used == 0) {
    in_vectors(draws, chosen, [&](const int* at, const uint64_t* elements, int count) {
      BitLanes words[16];
      retry_words(draws.args, elements, (trial - 1) / 4, words);
      for (int word = 0; word < 16; ++word) {
        for (int lane = 0; lane < count; ++lane) draws.words[word][at[lane]] = words[word][lane];
      }
    });
  }
  int rejected = 0;
  in_vectors(draws, chosen, [&](const int* at, const uint64_t*, int count) {
    const Columns columns = pick(draws, at);
    const Envelope envelope = pick_envelope(draws, at);
    uint32_t words[4][kLanes];
    for (int word = 0; word < 4; ++word) {
      for (int lane = 0; lane < kLanes; ++lane) words[word][lane] = draws.words[4 * used + word][at[lane]];
    }
    TrialBits bits;
    __builtin_memcpy(&bits, words, sizeof words);
    const Hit hit = pick_hit(draws, at, node_target(draws.plan, envelope, bits));
    IntLanes accepted;
    const IntLanes index = try_once<kSeries>(draws.args, draws.plan, columns, envelope, hit, bits, accepted);
    for (int lane = 0; lane < count; ++lane) {
      draws.index[at[lane]] = index[lane];
      if (accepted[lane] == 0) chosen.at[rejected++] = at[lane];  // never beyond what was read
    }
  });
  chosen.count = rejected;
}

// From the scores of all grid points.
template <bool kSeries>
void draw_chosen(Draws& draws, const Chosen& chosen) {
  in_vectors(draws, chosen, [&](const int* at, const uint64_t* elements, int count) {
    const Columns columns = pick(draws, at);
    const FloatLanes best = score_all<kSeries>(draws.args, draws.plan, columns, draws.room.scores);
    const IntLanes index = draw_from_scores(draws.args, draws.plan, draws.room, best, elements);
    for (int lane = 0; lane < count; ++lane) draws.index[at[lane]] = index[lane];
  });
}

// The words of the first trial: those of a tile, and zeros for the lanes of a last vector that lie behind it.
struct FirstWords {
  FirstWords(const KdeEmArgs& args, uint64_t element) : skipped(static_cast<int>(element % kTile)) {
    const uint64_t group = element / kTile * (kTile / kSpreadGroup);
    for (uint32_t i = 0; i < 2 * (kTile / kSpreadGroup); ++i) {
      const uint32_t draw = i % 2, first = i / 2 * kSpreadGroup;
      spread_group(args.key, group + i / 2, args.attempt, kPurposeKdeEmTrial | (draw << 8), words[2 * draw] + first,
                   words[2 * draw + 1] + first);
    }
    for (auto& row : words) __builtin_memset(row + kTile, 0, kTile * sizeof(uint32_t));
  }
  TrialBits at(int place) const {
    TrialBits bits;
    BitLanes* parts[4] = {&bits.node_low, &bits.node_high, &bits.point_low, &bits.point_high};
    for (int i = 0; i < 4; ++i) __builtin_memcpy(parts[i], words[i] + skipped + place, sizeof(BitLanes));
    return bits;
  }

  int skipped;  // elements of the tile's groups before the call's first
  uint32_t words[4][2 * kTile];
};

// The first trial of a vector of neighbours; the envelope is kept for later trials.
template <bool kSeries>
IntLanes draw_vector(Draws& draws, int vector, const FirstWords& first, IntLanes& accepted) {
  const KdeEmArgs& args = draws.args;
  const KdeEmPlan& plan = draws.plan;
  const int at = vector * kLanes;
  const Columns columns = draws.tile.columns(vector);
  float* nodes = draws.room.nodes + at;
  const Envelope envelope = make_envelope(args, plan, columns, draws.room.shares, nodes, kTile);
  keep(draws, at, envelope);
  accepted = IntLanes{};
  if (envelope.nodes == 0) return accepted;
  const TrialBits bits = first.at(at);
  const Hit hit = scan_nodes(nodes, kTile, envelope.nodes, node_target(plan, envelope, bits));
  return try_once<kSeries>(args, plan, columns, envelope, hit, bits, accepted);
}

template <bool kSeries>
void draw_neighbours(Draws& draws, Chosen& again, Chosen& rest) {
  const FirstWords first(draws.args, draws.element(0));
  for (int vector = 0; vector < draws.tile.vectors; ++vector) {
    const int at = vector * kLanes;
    IntLanes accepted;
    const IntLanes index = draw_vector<kSeries>(draws, vector, first, accepted);
    __builtin_memcpy(draws.index + at, &index, sizeof index);
    for (int lane = 0; lane < kLanes && at + lane < draws.tile.count; ++lane) {
      if (accepted[lane] != 0) continue;
      Chosen& list = draws.shift[at + lane] >= 0 ? again : rest;
      list.at[list.count++] = at + lane;
    }
  }
}

// Lazily: by the envelope, and from the scores of all grid points where it does not serve or no trial is accepted.
template <bool kSeries>
void draw_lazily(Draws& draws) {
  Chosen again, rest;
  if (draws.plan.envelope.usable) {
    draw_neighbours<kSeries>(draws, again, rest);
  } else {
    while (rest.count < draws.tile.count) rest.at[rest.count] = rest.count, ++rest.count;
  }
  for (int trial = 1; trial < kTrials && again.count > 0; ++trial) try_chosen<kSeries>(draws, again, trial);
  for (int i = 0; i < again.count; ++i) rest.at[rest.count++] = again.at[i];
  draw_chosen<kSeries>(draws, rest);
}

// With fixed work: from the scores of all grid points, by the nodes or, where they do not serve, directly. As often as
// the lanes differ in their numbers of grid points between two nodes, which are public.
template <bool kSeries>
void draw_fixed(Draws& draws) {
  for (int at = 0; at < draws.tile.count; at += kLanes) {
    const Tile& tile = draws.tile;
    const Columns columns = tile.columns(at / kLanes);
    const NodeVector vector = node_vector(draws.plan, tile, at);
    uint64_t elements[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) elements[lane] = draws.element(at + lane);
    bool done[kLanes] = {};
    for (int lane = 0; lane < kLanes; ++lane) {
      if (done[lane]) continue;
      const int shift = vector.shift[lane];
      const FloatLanes best = shift < 0
                                  ? score_all<kSeries>(draws.args, draws.plan, columns, draws.room.scores)
                                  : score_by_nodes(draws.args, draws.plan, columns, only(vector, shift), draws.room);
      const IntLanes index = draw_from_scores(draws.args, draws.plan, draws.room, best, elements);
      for (int other = lane; other < kLanes; ++other) {
        if (vector.shift[other] == shift) draws.index[at + other] = index[other], done[other] = true;
      }
    }
  }
}

template <bool kSeries>
void draw_tile(Draws& draws) {
  const KdeEmArgs& args = draws.args;
  const Tile& tile = draws.tile;
  if (args.fixed_work) {
    draw_fixed<kSeries>(draws);
  } else {
    draw_lazily<kSeries>(draws);
  }
  for (int i = 0; i < tile.count; ++i) {
    const int32_t k = draws.index[i];
    args.value[tile.first + i] = grid_point(tile.lo[i], tile.hi[i], tile.step[i], k);
    if (args.index) args.index[tile.first + i] = k;
  }
}

template <bool kSeries>
void write_scores(const KdeEmArgs& args, const KdeEmPlan& plan, const Tile& tile, const Room& room) {
  for (int vector = 0; vector < tile.vectors; ++vector) {
    score_all<kSeries>(args, plan, tile.columns(vector), room.scores);
    for (int lane = 0; lane < kLanes && vector * kLanes + lane < tile.count; ++lane) {
      float* row = args.scores + (tile.first + vector * kLanes + lane) * args.grid_points;
      for (int64_t k = 0; k < args.grid_points; ++k) row[k] = room.scores[k * kLanes + lane] * plan.score_scale;
    }
  }
}

template <bool kSeries>
void run_tile(const KdeEmArgs& args, const KdeEmPlan& plan, const Tile& tile, const Room& room) {
  if (args.scores) write_scores<kSeries>(args, plan, tile, room);
  if (args.value == nullptr) return;
  Draws draws(args, plan, room, tile);
  draw_tile<kSeries>(draws);
}

}  // namespace

void kde_em_range(const KdeEmArgs& args, const KdeEmPlan& plan, int64_t begin, int64_t end, float* scratch,
                  KdeEmFailure& failure) {
  const Room room = divide(scratch, args);
  Tile tile;
  tile.members = room.members;
  for (int64_t at = begin; at < end;) {
    const int64_t left = kTile - static_cast<int64_t>((args.first_element + static_cast<uint64_t>(at)) % kTile);
    const int count = static_cast<int>(end - at < left ? end - at : left);
    if (!read_tile(args, at, count, tile, failure)) return;
    if (plan.kernel.use_series) {
      run_tile<true>(args, plan, tile, room);
    } else {
      run_tile<false>(args, plan, tile, room);
    }
    at += count;
  }
}

}  // namespace PK_ISA
}  // namespace privkernels
