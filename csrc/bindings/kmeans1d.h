// kmeans1d for the Python modules of the CPU and of CUDA.
#pragma once

#include "common.h"
#include "privkernels/kmeans1d.h"

namespace privkernels::bindings {

inline Kmeans1dArgs kmeans1d_args(uintptr_t values, int64_t num_values, int64_t k, int64_t iterations, int method,
                                  int index_bytes, uintptr_t centroids, uintptr_t assignment, uintptr_t inertia,
                                  uintptr_t summary) {
  return {float_pointer(values),
          num_values,
          k,
          iterations,
          static_cast<KmeansMethod>(method),
          index_bytes,
          reinterpret_cast<float*>(centroids),
          reinterpret_cast<void*>(assignment),
          reinterpret_cast<double*>(inertia),
          reinterpret_cast<int64_t*>(summary)};
}

inline Kmeans1dSplitArgs kmeans1d_split_args(uintptr_t values, int64_t num_values, uintptr_t centroids,
                                             int64_t num_centroids, int centroid_bits, int residual_bits,
                                             int index_bytes, uintptr_t assignment, uintptr_t residual,
                                             uintptr_t reconstructed) {
  return {float_pointer(values),
          num_values,
          float_pointer(centroids),
          num_centroids,
          centroid_bits,
          residual_bits,
          index_bytes,
          reinterpret_cast<void*>(assignment),
          reinterpret_cast<int32_t*>(residual),
          reinterpret_cast<float*>(reconstructed)};
}

// Calls run() without the interpreter's lock: all of these take their time, or wait for a stream.
template <class Run>
py::tuple without_lock(const Run& run) {
  Status status;
  {
    const py::gil_scoped_release release;
    status = run();
  }
  return to_tuple(status);
}

inline void bind_kmeans1d_cpu(py::module_& module) {
  module.def("kmeans1d", [](uintptr_t values, int64_t num_values, int64_t k, int64_t iterations, int method,
                            int index_bytes, uintptr_t centroids, uintptr_t assignment, uintptr_t inertia,
                            uintptr_t summary, int threads) {
    const Kmeans1dArgs args =
        kmeans1d_args(values, num_values, k, iterations, method, index_bytes, centroids, assignment, inertia, summary);
    return without_lock([&] { return kmeans1d_cpu(args, threads); });
  });
  module.def("kmeans1d_split", [](uintptr_t values, int64_t num_values, uintptr_t centroids, int64_t num_centroids,
                                  int centroid_bits, int residual_bits, int index_bytes, uintptr_t assignment,
                                  uintptr_t residual, uintptr_t reconstructed, int threads) {
    const Kmeans1dSplitArgs args = kmeans1d_split_args(values, num_values, centroids, num_centroids, centroid_bits,
                                                       residual_bits, index_bytes, assignment, residual, reconstructed);
    return without_lock([&] { return kmeans1d_split_cpu(args, threads); });
  });
}

inline void bind_kmeans1d_cuda(py::module_& module) {
  module.attr("kmeans1d_split_workspace") = kKmeans1dSplitWorkspace;
  // (status, bytes)
  module.def("kmeans1d_workspace", [](int64_t num_values, int64_t k, int device) {
    int64_t bytes = 0;
    const Status status = kmeans1d_cuda_workspace(num_values, k, device, &bytes);
    return py::make_tuple(to_tuple(status), bytes);
  });
  module.def("kmeans1d", [](uintptr_t values, int64_t num_values, int64_t k, int64_t iterations, int method,
                            int index_bytes, uintptr_t centroids, uintptr_t assignment, uintptr_t inertia,
                            uintptr_t summary, uintptr_t workspace, int device, uintptr_t stream) {
    const Kmeans1dArgs args =
        kmeans1d_args(values, num_values, k, iterations, method, index_bytes, centroids, assignment, inertia, summary);
    return without_lock([&] {
      return kmeans1d_cuda(args, reinterpret_cast<void*>(workspace), device, reinterpret_cast<void*>(stream));
    });
  });
  module.def("kmeans1d_split", [](uintptr_t values, int64_t num_values, uintptr_t centroids, int64_t num_centroids,
                                  int centroid_bits, int residual_bits, int index_bytes, uintptr_t assignment,
                                  uintptr_t residual, uintptr_t reconstructed, uintptr_t workspace, int device,
                                  uintptr_t stream) {
    const Kmeans1dSplitArgs args = kmeans1d_split_args(values, num_values, centroids, num_centroids, centroid_bits,
                                                       residual_bits, index_bytes, assignment, residual, reconstructed);
    return without_lock([&] {
      return kmeans1d_split_cuda(args, reinterpret_cast<void*>(workspace), device, reinterpret_cast<void*>(stream));
    });
  });
}

}  // namespace privkernels::bindings
