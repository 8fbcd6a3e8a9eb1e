// kde_em for the Python modules.
#pragma once

#include <pybind11/stl.h>

#include "common.h"
#include "privkernels/kde_em.h"

namespace privkernels::bindings {

// Everything of KdeEmArgs but the member pointers, which CPU and CUDA keep in different places.
inline KdeEmArgs kde_em_args(int64_t num_members, int64_t num_elements, uintptr_t lo, int64_t lo_stride, uintptr_t hi,
                             int64_t hi_stride, uintptr_t bandwidth, int64_t bandwidth_stride, double window_ratio,
                             int64_t grid_points, double multiplier, const py::bytes& key, uint64_t first_element,
                             uint32_t attempt, int format, bool fixed_work, uintptr_t value, uintptr_t index,
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
  copy_key(key, args.key);
  args.first_element = first_element;
  args.attempt = attempt;
  args.format = static_cast<FloatFormat>(format);
  args.fixed_work = fixed_work;
  args.value = reinterpret_cast<float*>(value);
  args.index = reinterpret_cast<int32_t*>(index);
  args.scores = reinterpret_cast<float*>(scores);
  return args;
}

inline void bind_kde_em_cpu(py::module_& module) {
  module.def("kde_em", [](const std::vector<uintptr_t>& members, const std::vector<int64_t>& strides,
                          int64_t num_elements, uintptr_t lo, int64_t lo_stride, uintptr_t hi, int64_t hi_stride,
                          uintptr_t bandwidth, int64_t bandwidth_stride, double window_ratio, int64_t grid_points,
                          double multiplier, const py::bytes& key, uint64_t first_element, uint32_t attempt, int format,
                          bool fixed_work, uintptr_t value, uintptr_t index, uintptr_t scores, int threads) {
    if (members.size() != strides.size()) throw py::value_error("one stride for each member");
    KdeEmArgs args = kde_em_args(static_cast<int64_t>(members.size()), num_elements, lo, lo_stride, hi, hi_stride,
                                 bandwidth, bandwidth_stride, window_ratio, grid_points, multiplier, key, first_element,
                                 attempt, format, fixed_work, value, index, scores);
    args.members = reinterpret_cast<const void* const*>(members.data());
    args.member_strides = strides.data();
    Status status;
    {
      const py::gil_scoped_release release;
      status = kde_em_cpu(args, threads);
    }
    return to_tuple(status);
  });
}

inline void bind_kde_em_cuda(py::module_& module) {
  module.def("kde_em_workspace",
             [](int64_t num_members, int64_t num_elements, int64_t grid_points, bool fixed_work, int device) {
               KdeEmArgs args{};
               args.num_members = num_members, args.num_elements = num_elements, args.grid_points = grid_points;
               args.window_ratio = 1.0, args.fixed_work = fixed_work;
               return kde_em_cuda_workspace(args, device);
             });
  // members and member_strides: addresses of device arrays [M]; failure: of a device int64 [1] holding -1.
  module.def("kde_em", [](uintptr_t members, uintptr_t strides, int64_t num_members, int64_t num_elements, uintptr_t lo,
                          int64_t lo_stride, uintptr_t hi, int64_t hi_stride, uintptr_t bandwidth,
                          int64_t bandwidth_stride, double window_ratio, int64_t grid_points, double multiplier,
                          const py::bytes& key, uint64_t first_element, uint32_t attempt, int format, bool fixed_work,
                          uintptr_t value, uintptr_t index, uintptr_t scores, uintptr_t workspace, uintptr_t failure,
                          int device, uintptr_t stream) {
    KdeEmArgs args =
        kde_em_args(num_members, num_elements, lo, lo_stride, hi, hi_stride, bandwidth, bandwidth_stride, window_ratio,
                    grid_points, multiplier, key, first_element, attempt, format, fixed_work, value, index, scores);
    args.members = reinterpret_cast<const void* const*>(members);
    args.member_strides = reinterpret_cast<const int64_t*>(strides);
    return to_tuple(kde_em_cuda(args, reinterpret_cast<float*>(workspace), reinterpret_cast<int64_t*>(failure), device,
                                reinterpret_cast<void*>(stream)));
  });
}

}  // namespace privkernels::bindings
