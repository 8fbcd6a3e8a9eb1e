// What the CPU and the CUDA module share: arguments in as integers and bytes, statuses out as dicts.
#pragma once

#include <pybind11/pybind11.h>

#include <cstring>
#include <string>
#include <vector>

#include "privkernels/status.h"

namespace privkernels::bindings {

namespace py = pybind11;

inline const float* float_pointer(uintptr_t address) { return reinterpret_cast<const float*>(address); }

// A status as (code, member, element, message); Python raises the named exception.
inline py::tuple to_tuple(const Status& status) {
  return py::make_tuple(static_cast<int>(status.code), status.member, status.element, std::string(status.message));
}

// The derived key of a release, as the 32 bytes that Python hands over.
inline void copy_key(const py::bytes& key, uint32_t (&words)[8]) {
  const std::string secret = key;
  if (secret.size() != sizeof words) throw py::value_error("a key has 32 bytes");
  std::memcpy(words, secret.data(), sizeof words);  // x86-64, AArch64 and CUDA are little-endian
}

}  // namespace privkernels::bindings
