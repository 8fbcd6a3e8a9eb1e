// kde_em for one instruction set. This file is compiled once for each, in a namespace of its own
// (PK_ISA), with PK_LANES floats to a vector. No standard library here: see core/platform.h.
#include "core/kde_envelope.h"
#include "kde_em_tile.h"

namespace privkernels {
namespace PK_ISA {
namespace {

typedef EnvelopeShape<FloatLanes, IntLanes> Shape;

// What a worker writes to, beside the outputs.
struct Room {
  float* members;         // [M, kTile]
  float* nodes;           // [kNodeRoom, kTile], two places in
  float* chosen_members;  // [M, lanes], of elements picked out of a tile
  float* shares;          // [4, M, lanes]
  float* scores;          // [R, lanes]
};

Room divide(float* scratch, const KdeEmArgs& args) {
  Room room;
  room.members = scratch;
  room.nodes = room.members + args.num_members * kTile + 2 * kTile;
  room.chosen_members = room.nodes + (kNodeRoom - 2) * kTile;
  room.shares = room.chosen_members + args.num_members * kLanes;
  room.scores = room.shares + 4 * args.num_members * kLanes;
  return room;
}

// --- the scores ---

// The sum of K / w_max over the members at r.
template <bool kSeries>
PK_HD FloatLanes score_sum(const Columns& columns, int64_t num_members, const KdeKernel& kernel, FloatLanes r) {
  FloatLanes total = FloatLanes{};
  for (int64_t begin = 0; begin < num_members; begin += kMemberBlock) {
    const int64_t end = begin + kMemberBlock < num_members ? begin + kMemberBlock : num_members;
    FloatLanes block = FloatLanes{};
    for (int64_t i = begin; i < end; ++i) {
      const FloatLanes x = (r - load(columns.members + i * columns.stride)) * columns.inverse;
      block += kSeries ? kde_kernel_series(x, kernel) : kde_kernel_wide(x, kernel);
    }
    total += block;
  }
  return total;
}

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

// The draw from the scores of all grid points (which it overwrites); `first` is the element of lane 0 where the lanes
// are neighbours, `elements` names them. Reads every weight, whichever is drawn.
IntLanes draw_from_scores(const KdeEmArgs& args, const KdeEmPlan& plan, float* scores, FloatLanes best,
                          const uint64_t* elements) {
  uint64_t total[kLanes] = {}, target[kLanes], below[kLanes] = {};
  for (int64_t k = 0; k < args.grid_points; ++k) {
    float* at = scores + k * kLanes;
    const FloatLanes exponent = (load(at) - best) * plan.exponent_scale;
    store_lanes(at, exp2_normal(larger(exponent, constant<FloatLanes>(-125.0f))));
    for (int lane = 0; lane < kLanes; ++lane) total[lane] += integer_weight(at[lane], plan.two_to_bits);
  }
  uint64_t block = ~uint64_t{0};
  uint32_t words[16];
  for (int lane = 0; lane < kLanes; ++lane) {
    if (elements[lane] / 8 != block) {
      block = elements[lane] / 8;
      addressed_block(args.key, block, args.attempt, kPurposeKdeEm, words);
    }
    target[lane] = scale_to(element_bits(words, elements[lane]), total[lane]);
  }
  int64_t index[kLanes] = {};
  for (int64_t k = 0; k < args.grid_points; ++k) {
    const float* at = scores + k * kLanes;
    for (int lane = 0; lane < kLanes; ++lane) {
      below[lane] += integer_weight(at[lane], plan.two_to_bits);
      index[lane] += below[lane] <= target[lane] ? 1 : 0;
    }
  }
  IntLanes drawn = IntLanes{};
  for (int lane = 0; lane < kLanes; ++lane) drawn[lane] = static_cast<int32_t>(index[lane]);
  return drawn;
}

// --- the envelope ---

// Adds to `sums` the shares of every member in the kHalfNodes nodes above (or, with their `turns`, below) the middle.
void add_chain(const float* shares, const float* turns, float* state, int64_t num_members, FloatLanes* sums, int sign) {
  constexpr int kAtOnce = kLanes == 16 ? 16 : 8;  // sums that are kept in registers
  for (int first = 0; first < kHalfNodes; first += kAtOnce) {
    FloatLanes sum[kAtOnce] = {};
    const float* from = first == 0 ? shares : state;
    for (int64_t i = 0; i < num_members; ++i) {
      FloatLanes share = load(from + i * kLanes);
      const FloatLanes turn = load(turns + i * kLanes);
#pragma GCC unroll 16
      for (int l = 0; l < kAtOnce; ++l) {
        share = share * turn;
        sum[l] += share;
      }
      if (kAtOnce < kHalfNodes) store_lanes(state + i * kLanes, share);
    }
    for (int l = 0; l < kAtOnce; ++l) sums[kHalfNodes + sign * (first + l + 1)] = sum[l];
  }
}

struct Envelope {
  Shape shape;
  FloatLanes best;
  IntLanes total;
  int nodes;  // the most that any lane has
};

Envelope make_envelope(const KdeEmArgs& args, const KdeEmPlan& plan, const Columns& columns, const Room& room,
                       float* nodes, int64_t stride) {
  const int64_t num_members = args.num_members;
  Envelope envelope;
  envelope.shape = envelope_shape(columns.lo, columns.hi, columns.step, columns.inverse, plan.envelope,
                                  IntLanes{} + static_cast<int32_t>(args.grid_points));
  const Shape& shape = envelope.shape;
  envelope.nodes = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    envelope.nodes = shape.nodes[lane] > envelope.nodes ? shape.nodes[lane] : envelope.nodes;
  }
  float* shares = room.shares;
  float* up = shares + num_members * kLanes;
  float* down = up + num_members * kLanes;
  float* state = down + num_members * kLanes;
  for (int group = 0; group * kGroupNodes < envelope.nodes; ++group) {
    const FloatLanes middle = middle_node(columns.lo, columns.step, shape, group);
    FloatLanes sums[2 * kHalfNodes + 1];
    FloatLanes here = FloatLanes{};
    for (int64_t i = 0; i < num_members; ++i) {
      FloatLanes share, above, below;
      member_share(middle, load(columns.members + i * columns.stride), shape.inverse, shape.spacing, share, above,
                   below);
      here += share;
      store_lanes(shares + i * kLanes, share);
      store_lanes(up + i * kLanes, above);
      store_lanes(down + i * kLanes, below);
    }
    sums[kHalfNodes] = here;
    add_chain(shares, up, state, num_members, sums, 1);
    add_chain(shares, down, state, num_members, sums, -1);
    group_sums(sums, shape, group, nodes, stride);
  }
  envelope.total = node_weights(shape, plan.envelope, static_cast<float>(num_members), plan.exponent_scale,
                                envelope.nodes, nodes, stride, envelope.best);
  return envelope;
}

// Two words of 64 bits for each lane, in halves: the first chooses the node, the second whether its point is drawn.
struct TrialBits {
  BitLanes node_low, node_high, point_low, point_high;
};

PK_HD IntLanes scaled_target(BitLanes low, BitLanes high, IntLanes total) {
  IntLanes target = IntLanes{};
  uint32_t lows[kLanes], highs[kLanes], totals[kLanes], scaled[kLanes];
  __builtin_memcpy(lows, &low, sizeof low);
  __builtin_memcpy(highs, &high, sizeof high);
  __builtin_memcpy(totals, &total, sizeof total);
  for (int lane = 0; lane < kLanes; ++lane) scaled[lane] = scale_to_word(lows[lane], highs[lane], totals[lane]);
  __builtin_memcpy(&target, scaled, sizeof target);
  return target;
}

// The node that each lane's target hits, and the weights around it.
struct Hit {
  IntLanes node;
  NodeWeights<IntLanes> weights;
};

// The same lane by lane, in memory: a vector is put together faster from there than element by element.
struct HitLanes {
  int32_t node[kLanes], before[kLanes], here[kLanes], after[kLanes];

  void put(int lane, int32_t at, const float* nodes, int64_t stride) {
    const NodeWeights<int32_t> weights = weights_around(nodes, stride, at);
    node[lane] = at, before[lane] = weights.before, here[lane] = weights.here, after[lane] = weights.after;
  }
  Hit together() const {
    Hit hit;
    __builtin_memcpy(&hit.node, node, sizeof node);
    __builtin_memcpy(&hit.weights.before, before, sizeof before);
    __builtin_memcpy(&hit.weights.here, here, sizeof here);
    __builtin_memcpy(&hit.weights.after, after, sizeof after);
    return hit;
  }
};

// Of neighbouring columns; reads every sum.
PK_HD Hit scan_nodes(const float* nodes, int64_t stride, int count, IntLanes target) {
  const IntLanes found = find_node(nodes, stride, count, target);
  int32_t node[kLanes];
  __builtin_memcpy(node, &found, sizeof node);
  HitLanes hit;
  for (int lane = 0; lane < kLanes; ++lane) hit.put(lane, node[lane], nodes + lane, stride);
  return hit.together();
}

// What each lane's first word asks of the nodes.
PK_HD IntLanes node_target(const KdeEmPlan& plan, const Envelope& envelope, const TrialBits& bits) {
  return scaled_target(bits.node_low & ~BitLanes{} << plan.envelope.offset_bits, bits.node_high, envelope.total);
}

// One trial in every lane: the grid point proposed; `accepted` has all bits set where it is drawn.
template <bool kSeries>
IntLanes try_once(const KdeEmArgs& args, const KdeEmPlan& plan, const Columns& columns, const Envelope& envelope,
                  const Hit& hit, const TrialBits& bits, IntLanes& accepted) {
  const int offset_bits = plan.envelope.offset_bits;
  const IntLanes shift = envelope.shape.shift < 0 ? IntLanes{} : envelope.shape.shift;
  const Proposal<FloatLanes, IntLanes> proposal =
      propose<FloatLanes>(hit.node, hit.weights, shift, low_uniform(bits.node_low, shift, offset_bits),
                          low_uniform(bits.point_low, shift, offset_bits));
  const IntLanes k = proposal.point;
  const FloatLanes r = smaller(columns.lo + columns.step * to_float(k), columns.hi);
  const FloatLanes total = score_sum<kSeries>(columns, args.num_members, plan.kernel, r);
  accepted =
      (k >= 0) & (k < static_cast<int32_t>(args.grid_points)) & (envelope.shape.shift >= 0) &
      accepts(total, envelope.best, proposal.bound, plan.exponent_scale, offset_bits, bits.point_low, bits.point_high);
  return k;
}

// --- draws ---

// The words of four trials after the first: a block for each element.
PK_HD void retry_words(const KdeEmArgs& args, const uint64_t* elements, int block, BitLanes* words) {
  uint32_t low[kLanes], high[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    low[lane] = static_cast<uint32_t>(elements[lane]);
    high[lane] = static_cast<uint32_t>(elements[lane] >> 32);
  }
  BitLanes address[4];
  __builtin_memcpy(&address[0], low, sizeof low);
  __builtin_memcpy(&address[1], high, sizeof high);
  address[2] = BitLanes{} + args.attempt;
  address[3] = BitLanes{} + (kPurposeKdeEmRetry | static_cast<uint32_t>(block) << 8);
  chacha20_block(args.key, address, words);
}

// All trials after the first for kLanes elements, whichever is accepted.
template <bool kSeries>
void try_all(const KdeEmArgs& args, const KdeEmPlan& plan, const Columns& columns, const Envelope& envelope,
             const float* nodes, int64_t stride, const uint64_t* elements, IntLanes& index, IntLanes& accepted) {
  BitLanes words[16];
  for (int trial = 1; trial < kTrials; ++trial) {
    const int used = (trial - 1) % 4;
    if (used == 0) retry_words(args, elements, (trial - 1) / 4, words);
    const TrialBits bits{words[4 * used], words[4 * used + 1], words[4 * used + 2], words[4 * used + 3]};
    const Hit hit = scan_nodes(nodes, stride, envelope.nodes, node_target(plan, envelope, bits));
    IntLanes now;
    const IntLanes k = try_once<kSeries>(args, plan, columns, envelope, hit, bits, now);
    index = accepted ? index : k;
    accepted |= now;
  }
}

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
    const IntLanes index = draw_from_scores(draws.args, draws.plan, draws.room.scores, best, elements);
    for (int lane = 0; lane < count; ++lane) draws.index[at[lane]] = index[lane];
  });
}

template <bool kSeries>
void draw_tile(Draws& draws) {
  const KdeEmArgs& args = draws.args;
  const KdeEmPlan& plan = draws.plan;
  const Tile& tile = draws.tile;
  const bool enveloped = plan.envelope.usable != 0;
  const int skipped = static_cast<int>(draws.element(0) % kTile);
  uint32_t words[4][2 * kTile];  // twice: a vector may begin after `skipped` and end behind the group
  if (enveloped) {
    const uint64_t group = draws.element(0) / kTile * (kTile / kSpreadGroup);
    for (uint32_t i = 0; i < 2 * (kTile / kSpreadGroup); ++i) {
      const uint32_t draw = i % 2, first = i / 2 * kSpreadGroup;
      spread_group(args.key, group + i / 2, args.attempt, kPurposeKdeEmTrial | (draw << 8), words[2 * draw] + first,
                   words[2 * draw + 1] + first);
    }
    for (auto& row : words) __builtin_memset(row + kTile, 0, kTile * sizeof(uint32_t));
  }
  Chosen again, rest;
  for (int vector = 0; vector < tile.vectors; ++vector) {
    const int at = vector * kLanes;
    const Columns columns = tile.columns(vector);
    uint64_t elements[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) elements[lane] = draws.element(at + lane);
    IntLanes index = IntLanes{}, accepted = IntLanes{};
    Envelope envelope{};
    if (enveloped) {
      float* nodes = draws.room.nodes + at;
      envelope = make_envelope(args, plan, columns, draws.room, nodes, kTile);
      keep(draws, at, envelope);
      TrialBits bits;
      BitLanes* parts[4] = {&bits.node_low, &bits.node_high, &bits.point_low, &bits.point_high};
      for (int i = 0; i < 4; ++i) __builtin_memcpy(parts[i], words[i] + skipped + at, sizeof(BitLanes));
      const Hit hit = scan_nodes(nodes, kTile, envelope.nodes, node_target(plan, envelope, bits));
      index = try_once<kSeries>(args, plan, columns, envelope, hit, bits, accepted);
      if (args.fixed_work) {
        try_all<kSeries>(args, plan, columns, envelope, nodes, kTile, elements, index, accepted);
      }
    }
    if (args.fixed_work) {
      const FloatLanes best = score_all<kSeries>(args, plan, columns, draws.room.scores);
      const IntLanes last = draw_from_scores(args, plan, draws.room.scores, best, elements);
      index = accepted ? index : last;
    }
    __builtin_memcpy(draws.index + at, &index, sizeof index);
    if (args.fixed_work) continue;
    for (int lane = 0; lane < kLanes && at + lane < tile.count; ++lane) {
      if (accepted[lane] != 0) continue;
      Chosen& list = enveloped && envelope.shape.shift[lane] >= 0 ? again : rest;
      list.at[list.count++] = at + lane;
    }
  }
  for (int trial = 1; trial < kTrials && again.count > 0; ++trial) try_chosen<kSeries>(draws, again, trial);
  for (int i = 0; i < again.count; ++i) rest.at[rest.count++] = again.at[i];
  draw_chosen<kSeries>(draws, rest);
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
