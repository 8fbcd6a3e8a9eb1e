// A tile of kde_em's elements in float, member by member, as its variants (kde_em.cpp) work on it.
//
// Everything here is compiled once for each instruction set; no standard library, see core/platform.h.
#pragma once

#include <cstddef>

#include "core/chacha20.h"
#include "core/half.h"
#include "core/kde.h"
#include "kde_em_variant.h"

namespace privkernels {
namespace PK_ISA {
namespace {

constexpr int kLanes = PK_LANES;
constexpr int kTile = kKdeEmTile;

PK_HD FloatLanes load(const float* from) {
  FloatLanes value;
  load_lanes(from, value);
  return value;
}

// kLanes elements: member i lies at members + i * stride.
struct Columns {
  const float* members;
  int64_t stride;
  FloatLanes lo, hi, step, inverse;
};

struct Tile {
  int64_t first;  // element of the call
  int count;
  int vectors;
  float* members;  // [M, kTile]
  float lo[kTile], hi[kTile], step[kTile], inverse[kTile];

  Columns columns(int vector) const {
    const int at = vector * kLanes;
    return {members + at, kTile, load(lo + at), load(hi + at), load(step + at), load(inverse + at)};
  }
};

// `count` floats out of a row, which need not be aligned, and the last one again up to a whole number of vectors.
template <class Format>
void read_row(const void* row, int64_t stride, int64_t first, int count, int padded, float* out) {
  const char* bytes = static_cast<const char*>(row);
  constexpr int64_t kSize = static_cast<int64_t>(sizeof(typename Format::Bits));
  typename Format::Bits bits[kTile];
  if (stride == 1) {
    const char* from = bytes + first * kSize;
    __builtin_memcpy(bits, from, static_cast<std::size_t>(count * kSize));
    // The next tile's: many rows are read at once, too many for the processor to see that each of them goes on.
    for (int64_t line = 0; line < kTile * kSize; line += 64) __builtin_prefetch(from + kTile * kSize + line);
  } else {
    for (int i = 0; i < count; ++i) __builtin_memcpy(&bits[i], bytes + (first + i) * stride * kSize, kSize);
  }
  for (int i = 0; i < count; ++i) out[i] = Format::decode(bits[i]);
  for (int i = count; i < padded; ++i) out[i] = out[count - 1];
}

// Whether all of the row is finite. Integers, so that nothing is lost to a mode of the processor.
PK_HD bool all_finite(const float* row, int padded) {
  BitLanes most = BitLanes{};
  for (int i = 0; i < padded; i += kLanes) {
    const BitLanes bits = to_bits(load(row + i)) & 0x7fffffffu;
    most = bits > most ? bits : most;
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    if (most[lane] >= 0x7f800000u) return false;
  }
  return true;
}

PK_HD void read_member(const KdeEmArgs& args, int64_t member, int64_t first, int count, int padded, float* out) {
  const void* row = args.members[member];
  const int64_t stride = args.member_strides[member];
  switch (args.format) {
    case FloatFormat::kFloat16: return read_row<HalfBits>(row, stride, first, count, padded, out);
    case FloatFormat::kBFloat16: return read_row<BrainBits>(row, stride, first, count, padded, out);
    default: return read_row<SingleBits>(row, stride, first, count, padded, out);
  }
}

// The range and bandwidth of the tile; the first element that is not usable, or `count`.
int read_grid(const KdeEmArgs& args, Tile& tile, int padded) {
  float bandwidth[kTile];
  read_row<SingleBits>(args.lo, args.lo_stride, tile.first, tile.count, padded, tile.lo);
  read_row<SingleBits>(args.hi, args.hi_stride, tile.first, tile.count, padded, tile.hi);
  read_row<SingleBits>(args.bandwidth, args.bandwidth_stride, tile.first, tile.count, padded, bandwidth);
  int usable = tile.count;
  for (int i = padded - 1; i >= 0; --i) {
    const float range = tile.hi[i] - tile.lo[i];
    tile.step[i] = range / static_cast<float>(args.grid_points - 1);
    tile.inverse[i] = static_cast<float>(kBaseTwo) / bandwidth[i];
    const bool good = range >= 0.0f && range <= kLargestFloat && magnitude(tile.lo[i]) <= kLargestFloat &&
                      bandwidth[i] >= kSmallestBandwidth && bandwidth[i] <= kLargestBandwidth;
    usable = good || i >= tile.count ? usable : i;
  }
  return usable;
}

// Reads `count` elements from `first`; false, with the reason in `failure`, when an input is not usable.
bool read_tile(const KdeEmArgs& args, int64_t first, int count, Tile& tile, KdeEmFailure& failure) {
  tile.first = first;
  tile.count = count;
  tile.vectors = (count + kLanes - 1) / kLanes;
  const int padded = tile.vectors * kLanes;
  int usable = read_grid(args, tile, padded);
  int64_t at_fault = -1;
  for (int64_t i = 0; i < args.num_members; ++i) {
    float* row = tile.members + i * kTile;
    read_member(args, i, first, count, padded, row);
    if (all_finite(row, padded)) continue;
    for (int j = 0; j < usable; ++j) {
      if ((to_bits(row[j]) & 0x7fffffffu) >= 0x7f800000u) usable = j, at_fault = i;
    }
  }
  if (usable < count) failure = {first + usable, at_fault};
  return usable == count;
}

}  // namespace
}  // namespace PK_ISA
}  // namespace privkernels
