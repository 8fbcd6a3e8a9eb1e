// What every launch does around the kernel: make the device current, look for errors, put the old device back.
#pragma once

#include <cuda_runtime.h>

#include "privkernels/status.h"

namespace privkernels {

inline Status cuda_failed(cudaError_t error) { return {StatusCode::kCudaError, -1, -1, cudaGetErrorString(error)}; }

// Calls launch(number of multiprocessors) with `device` current.
template <class Launch>
Status launch_on(int device, const Launch& launch) {
  int previous = 0, processors = 0;
  cudaError_t error = cudaGetDevice(&previous);
  if (error == cudaSuccess) error = cudaSetDevice(device);
  if (error != cudaSuccess) return cuda_failed(error);
  error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess) {
    launch(processors);
    error = cudaGetLastError();
  }
  const cudaError_t restored = cudaSetDevice(previous);
  if (error != cudaSuccess) return cuda_failed(error);
  return restored == cudaSuccess ? Status{} : cuda_failed(restored);
}

}  // namespace privkernels
