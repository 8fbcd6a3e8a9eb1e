// kmeans1d for the Python module of the CPU.
#pragma once

#include "common.h"
#include "privkernels/kmeans1d.h"

namespace privkernels::bindings {

inline void bind_kmeans1d_cpu(py::module_& module) {
  module.def("kmeans1d",
             [](uintptr_t values, int64_t num_values, int64_t k, int64_t iterations, int method, int index_bytes,
                uintptr_t centroids, uintptr_t assignment, uintptr_t inertia, uintptr_t summary, int threads) {
               const Kmeans1dArgs args{float_pointer(values),
                                       num_values,
                                       k,
                                       iterations,
                                       static_cast<KmeansMethod>(method),
                                       index_bytes,
                                       reinterpret_cast<float*>(centroids),
                                       reinterpret_cast<void*>(assignment),
                                       reinterpret_cast<double*>(inertia),
                                       reinterpret_cast<int64_t*>(summary)};
               Status status;
               {
                 const py::gil_scoped_release release;
                 status = kmeans1d_cpu(args, threads);
               }
               return to_tuple(status);
             });
  module.def("kmeans1d_split", [](uintptr_t values, int64_t num_values, uintptr_t centroids, int64_t num_centroids,
                                  int centroid_bits, int residual_bits, int index_bytes, uintptr_t assignment,
                                  uintptr_t residual, uintptr_t reconstructed, int threads) {
    const Kmeans1dSplitArgs args{float_pointer(values),
                                 num_values,
                                 float_pointer(centroids),
                                 num_centroids,
                                 centroid_bits,
                                 residual_bits,
                                 index_bytes,
                                 reinterpret_cast<void*>(assignment),
                                 reinterpret_cast<int32_t*>(residual),
                                 reinterpret_cast<float*>(reconstructed)};
    Status status;
    {
      const py::gil_scoped_release release;
      status = kmeans1d_split_cpu(args, threads);
    }
    return to_tuple(status);
  });
}

}  // namespace privkernels::bindings
