// em_select for the Python modules.
#pragma once

#include "common.h"
#include "privkernels/em_select.h"

namespace privkernels::bindings {

inline EmSelectArgs em_select_args(uintptr_t scores, bool is_double, int64_t num_segments, uintptr_t offsets,
                                   int64_t segment_length, int64_t segment_stride, int64_t candidate_stride,
                                   double multiplier, int64_t k, bool permute_and_flip, const py::bytes& key,
                                   uint64_t first_segment, uintptr_t index) {
  EmSelectArgs args{};
  args.scores = reinterpret_cast<const void*>(scores);
  args.is_double = is_double;
  args.num_segments = num_segments;
  args.offsets = reinterpret_cast<const int64_t*>(offsets);
  args.segment_length = segment_length;
  args.segment_stride = segment_stride, args.candidate_stride = candidate_stride;
  args.multiplier = multiplier;
  args.k = k;
  args.permute_and_flip = permute_and_flip;
  copy_key(key, args.key);
  args.first_segment = first_segment;
  args.index = reinterpret_cast<int64_t*>(index);
  return args;
}

inline void bind_em_select_cpu(py::module_& module) {
  module.def("em_select",
             [](uintptr_t scores, bool is_double, int64_t num_segments, uintptr_t offsets, int64_t segment_length,
                int64_t segment_stride, int64_t candidate_stride, double multiplier, int64_t k, bool permute_and_flip,
                const py::bytes& key, uint64_t first_segment, uintptr_t index, int threads) {
               const EmSelectArgs args =
                   em_select_args(scores, is_double, num_segments, offsets, segment_length, segment_stride,
                                  candidate_stride, multiplier, k, permute_and_flip, key, first_segment, index);
               Status status;
               {
                 const py::gil_scoped_release release;
                 status = em_select_cpu(args, threads);
               }
               return to_tuple(status);
             });
}

// copy: a device address with room for all scores, or 0; failure: of a device int64 [1] holding -1.
inline void bind_em_select_cuda(py::module_& module) {
  module.def("em_select",
             [](uintptr_t scores, bool is_double, int64_t num_segments, uintptr_t offsets, int64_t segment_length,
                int64_t segment_stride, int64_t candidate_stride, double multiplier, int64_t k, bool permute_and_flip,
                const py::bytes& key, uint64_t first_segment, uintptr_t index, uintptr_t copy, uintptr_t failure,
                int device, uintptr_t stream) {
               const EmSelectArgs args =
                   em_select_args(scores, is_double, num_segments, offsets, segment_length, segment_stride,
                                  candidate_stride, multiplier, k, permute_and_flip, key, first_segment, index);
               return to_tuple(em_select_cuda(args, reinterpret_cast<void*>(copy), reinterpret_cast<int64_t*>(failure),
                                              device, reinterpret_cast<void*>(stream)));
             });
}

}  // namespace privkernels::bindings
