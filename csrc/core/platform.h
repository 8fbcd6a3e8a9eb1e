// One macro so that the same arithmetic compiles for the host and for the device.
//
// Functions are static and always inlined: a file compiled for AVX-512 must not leave behind a weak
// symbol with wide instructions that the linker could choose for the base path.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define PK_HD static __host__ __device__ __forceinline__
#else
#define PK_HD static inline __attribute__((always_inline))
#endif
