// What the CPU and the CUDA module share: arguments in as integers and bytes, statuses out as dicts.
#pragma once

#include <pybind11/pybind11.h>

#include <cstring>
#include <string>
#include <vector>

#include "privkernels/kde_em.h"

namespace privkernels::bindings {

namespace py = pybind11;

inline const float* float_pointer(uintptr_t address) { return reinterpret_cast<const float*>(address); }

// A status as (code, member, element, message); Python raises the named exception.
inline py::tuple to_tuple(const Status& status) {
  return py::make_tuple(static_cast<int>(status.code), status.member, status.element, std::string(status.message));
}

// Everything of KdeEmArgs but the member pointers, which CPU and CUDA keep in different places.
inline KdeEmArgs kde_em_args(int64_t num_members, int64_t num_elements, uintptr_t lo, int64_t lo_stride, uintptr_t hi,
                             int64_t hi_stride, uintptr_t bandwidth, int64_t bandwidth_stride, double window_ratio,
                             int64_t grid_points, double multiplier, const py::bytes& key, uint64_t first_element,
                             uint32_t attempt, int dtype, bool fixed_work, uintptr_t value, uintptr_t index,
                             uintptr_t scores) {
  KdeEmArgs args{};
  args.num_members = num_members;
  args.num_elements = num_elements;
  args.lo = float_pointer(lo), args.lo_stride = lo_stride;
  args.hi = float_pointer(hi), args.hi_stride = hi_stride;
  args.bandwidth = float_pointer(bandwidth), args.bandwidth_stride = bandwidth_stride;
  args.window_ratio = window_ratio;
  args.grid_points = grid_points;
  args.multiplier = multiplier;
  const std::string secret = key;
  if (secret.size() != sizeof args.key) throw py::value_error("a key has 32 bytes");
  std::memcpy(args.key, secret.data(), sizeof args.key);  // x86-64, AArch64 and CUDA are little-endian
  args.first_element = first_element;
  args.attempt = attempt;
  args.dtype = static_cast<MemberType>(dtype);
  args.fixed_work = fixed_work;
  args.value = reinterpret_cast<float*>(value);
  args.index = reinterpret_cast<int32_t*>(index);
  args.scores = reinterpret_cast<float*>(scores);
  return args;
}

}  // namespace privkernels::bindings
