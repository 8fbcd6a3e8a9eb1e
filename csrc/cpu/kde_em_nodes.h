// The scores of all grid points from sums at nodes, in every lane (core/kde_nodes.h).
//
// Everything here is compiled once for each instruction set; no standard library, see core/platform.h.
#pragma once

#include "core/kde_nodes.h"
#include "kde_em_draw.h"

namespace privkernels {
namespace PK_ISA {
namespace {

// Of the elements of a vector.
struct NodeVector {
  int shift[kLanes];
  NodeShape<float> shape[kLanes];
  float lo[kLanes], step[kLanes];
};

NodeVector node_vector(const KdeEmPlan& plan, const Tile& tile, int at) {
  NodeVector vector;
  for (int lane = 0; lane < kLanes; ++lane) {
    const int i = at + lane;
    vector.lo[lane] = tile.lo[i], vector.step[lane] = tile.step[i];
    vector.shape[lane] =
        node_shape(tile.lo[i], tile.hi[i], tile.step[i], tile.inverse[i], plan.nodes, vector.shift[lane]);
  }
  return vector;
}

// The same for the lanes with this shift; the others take the place of the first of those, and give nothing of use.
NodeVector only(const NodeVector& vector, int shift) {
  int first = 0;
  while (vector.shift[first] != shift) ++first;
  NodeVector chosen = vector;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (vector.shift[lane] == shift) continue;
    chosen.shift[lane] = shift, chosen.shape[lane] = vector.shape[first];
    chosen.lo[lane] = vector.lo[first], chosen.step[lane] = vector.step[first];
  }
  return chosen;
}

NodeShape<FloatLanes> together(const NodeVector& vector) {
  float part[6][kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    const NodeShape<float>& shape = vector.shape[lane];
    part[0][lane] = shape.inverse, part[1][lane] = shape.inverse_rest, part[2][lane] = shape.kappa;
    part[3][lane] = shape.kappa_rest, part[4][lane] = shape.farthest, part[5][lane] = shape.place;
  }
  return {load(part[0]), load(part[1]), load(part[2]), load(part[3]), load(part[4]), load(part[5])};
}

// The sums of K / w_max at all grid points into room.scores; returns the largest per lane, and at least 0. All lanes
// have one shift.
FloatLanes score_by_nodes(const KdeEmArgs& args, const KdeEmPlan& plan, const Columns& columns,
                          const NodeVector& vector, const Room& room) {
  const NodeShape<FloatLanes> shape = together(vector);
  const int shift = vector.shift[0];
  const int count = node_count(plan.nodes, node_intervals(args.grid_points, shift));
  const auto member = [&](int64_t i) { return load(columns.members + i * columns.stride); };
  const auto middle = [&](int group, FloatLanes& high, FloatLanes& low) {
    float highs[kLanes], lows[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      node_middle(vector.lo[lane], vector.step[lane], shift, plan.nodes, group, highs[lane], lows[lane]);
    }
    high = load(highs), low = load(lows);
  };
  sum_nodes(args.num_members, member, middle, shape, count, room.sums, kLanes);
  return spread_nodes(plan.nodes, shape, shift, args.grid_points, room.sums, room.scores, room.levels, kLanes);
}

}  // namespace
}  // namespace PK_ISA
}  // namespace privkernels
