// The draw of kde_em from the scores of all grid points, in every lane: weights in integers, and one uniform number.
//
// Everything here is compiled once for each instruction set; no standard library, see core/platform.h.
#pragma once

#include "kde_em_tile.h"

namespace privkernels {
namespace PK_ISA {
namespace {

constexpr int kHalf = kLanes / 2;
typedef int64_t LongHalf __attribute__((vector_size(kHalf * 8)));
typedef uint32_t BitHalf __attribute__((vector_size(kHalf * 4)));

// 64 bits for each lane.
struct LongLanes {
  LongHalf half[2];

  void add(BitLanes value) {
    BitHalf part[2];
    __builtin_memcpy(part, &value, sizeof part);
    for (int i = 0; i < 2; ++i) half[i] += __builtin_convertvector(part[i], LongHalf);
  }
};

// What a worker writes to, beside the outputs.
struct Room {
  float* members;         // [M, kTile]
  float* nodes;           // [kNodeRoom, kTile], two places in
  float* chosen_members;  // [M, lanes], of elements picked out of a tile
  float* shares;          // [4, M, lanes]
  float* scores;          // [R rounded up to whole blocks of a draw, lanes]
  LongLanes* running;     // [draw_blocks(R)]
  float* sums;            // [node_room(R), lanes], for fixed work
  float* levels;          // [2, level_room(R), lanes], for fixed work
};

// Vectors are aligned, so `scratch` is moved on to where one may begin.
Room divide(float* scratch, const KdeEmArgs& args) {
  constexpr std::size_t kAlign = alignof(LongLanes);
  const std::size_t over = reinterpret_cast<std::size_t>(scratch) % kAlign;
  char* start = reinterpret_cast<char*>(scratch) + (over == 0 ? 0 : kAlign - over);
  Room room;
  room.running = reinterpret_cast<LongLanes*>(start);
  room.scores = reinterpret_cast<float*>(room.running + draw_blocks(args.grid_points));
  room.members = room.scores + draw_blocks(args.grid_points) * kDrawBlock * kLanes;
  room.nodes = room.members + args.num_members * kTile + 2 * kTile;
  room.chosen_members = room.nodes + (kNodeRoom - 2) * kTile;
  room.shares = room.chosen_members + args.num_members * kLanes;
  room.sums = room.shares + 4 * args.num_members * kLanes;
  room.levels = room.sums + node_room(args.grid_points) * kLanes;
  return room;
}

// integer_weight of `count` weights as whole * 2^(bits - kWholeBits) + rest: 32 bits hold either sum of kRun of them,
// for kRun = 2 always, and for kRun = kDrawBlock where there are at least 128 grid points, and so at most 55 bits.
template <int kRun>
PK_HD void add_weight(FloatLanes weight, float rest_scale, BitLanes& whole, BitLanes& rest) {
  constexpr int kWholeBits = kRun == 2 ? 30 : 27;
  const FloatLanes scaled = weight * static_cast<float>(1 << kWholeBits);
  const IntLanes cut = to_integer(scaled);
  whole += reinterpret_cast<BitLanes>(cut);
  rest += reinterpret_cast<BitLanes>(to_integer((scaled - to_float(cut)) * rest_scale));
}

// Turns the scores (sums of K / w_max, of which best is the largest) into weights, and sums them up: the sum of all up
// to the end of each block into `running`. Returns the whole.
template <int kRun>
LongLanes sum_weights(const KdeEmArgs& args, const KdeEmPlan& plan, FloatLanes best, float* scores,
                      LongLanes* running) {
  const int rest_bits = weight_bits(args.grid_points) - (kRun == 2 ? 30 : 27);
  const float rest_scale = static_cast<float>(uint32_t{1} << rest_bits);
  const int64_t blocks = draw_blocks(args.grid_points);
  LongLanes total = {};
  for (int64_t block = 0; block < blocks; ++block) {
    LongLanes wholes = {}, rests = {};
    for (int run = 0; run < kDrawBlock; run += kRun) {
      BitLanes whole = {}, rest = {};
      for (int i = 0; i < kRun; ++i) {
        const int64_t k = block * kDrawBlock + run + i;
        FloatLanes weight = FloatLanes{};  // of what fills up the last block
        if (k < args.grid_points) {
          const FloatLanes exponent = (load(scores + k * kLanes) - best) * plan.exponent_scale;
          weight = exp2_normal(larger(exponent, constant<FloatLanes>(-125.0f)));
        }
        store_lanes(scores + k * kLanes, weight);
        add_weight<kRun>(weight, rest_scale, whole, rest);
      }
      wholes.add(whole);
      rests.add(rest);
    }
    for (int i = 0; i < 2; ++i) total.half[i] += (wholes.half[i] << rest_bits) + rests.half[i];
    __builtin_memcpy(running + block, &total, sizeof total);
  }
  return total;
}

// The draw from the scores of all grid points, which it overwrites. Reads every weight, whichever is drawn.
IntLanes draw_from_scores(const KdeEmArgs& args, const KdeEmPlan& plan, const Room& room, FloatLanes best,
                          const uint64_t* elements) {
  LongLanes* running = room.running;
  const LongLanes total = args.grid_points < 128 ? sum_weights<2>(args, plan, best, room.scores, running)
                                                 : sum_weights<kDrawBlock>(args, plan, best, room.scores, running);
  LongLanes target = {};
  uint64_t block = ~uint64_t{0};
  uint32_t words[16];
  for (int lane = 0; lane < kLanes; ++lane) {
    if (elements[lane] / 8 != block) {
      block = elements[lane] / 8;
      addressed_block(args.key, block, args.attempt, kPurposeKdeEm, words);
    }
    const uint64_t whole = static_cast<uint64_t>(total.half[lane / kHalf][lane % kHalf]);
    target.half[lane / kHalf][lane % kHalf] =
        static_cast<int64_t>(scale_to(element_bits(words, elements[lane]), whole));
  }
  // The block that holds the target, and the sum of all before it.
  const int64_t blocks = draw_blocks(args.grid_points);
  LongLanes chosen = {}, before = {};
  for (int64_t at = 0; at < blocks; ++at) {
    LongLanes sum;
    __builtin_memcpy(&sum, running + at, sizeof sum);
    for (int i = 0; i < 2; ++i) {
      const LongHalf passed = sum.half[i] <= target.half[i];
      chosen.half[i] -= passed;
      before.half[i] = passed ? sum.half[i] : before.half[i];
    }
  }
  IntLanes place;
  for (int lane = 0; lane < kLanes; ++lane) {
    place[lane] = static_cast<int32_t>(chosen.half[lane / kHalf][lane % kHalf]);
  }
  FloatLanes weights[kDrawBlock] = {};
  for (int64_t at = 0; at < blocks; ++at) {
    const IntLanes here = place == static_cast<int32_t>(at);
    for (int i = 0; i < kDrawBlock; ++i) {
      weights[i] = here ? load(room.scores + (at * kDrawBlock + i) * kLanes) : weights[i];
    }
  }
  int64_t below[kLanes], index[kLanes], ends[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    below[lane] = before.half[lane / kHalf][lane % kHalf];
    ends[lane] = target.half[lane / kHalf][lane % kHalf];
    index[lane] = place[lane] * kDrawBlock;
  }
  for (int i = 0; i < kDrawBlock; ++i) {
    float weight[kLanes];
    store_lanes(weight, weights[i]);
    for (int lane = 0; lane < kLanes; ++lane) {
      below[lane] += static_cast<int64_t>(integer_weight(weight[lane], plan.two_to_bits));
      index[lane] += below[lane] <= ends[lane] ? 1 : 0;
    }
  }
  IntLanes drawn = IntLanes{};
  for (int lane = 0; lane < kLanes; ++lane) drawn[lane] = static_cast<int32_t>(index[lane]);
  return drawn;
}

}  // namespace
}  // namespace PK_ISA
}  // namespace privkernels
