// privkernels._cpu
#include <pybind11/stl.h>

#include "common.h"
#include "core/chacha20.h"
#include "cpu/isa.h"
#include "em_select.h"
#include "kde_em.h"
#include "kmeans1d.h"
#include "mask_sum.h"
#include "noise_add.h"
#include "noisy_activations.h"
#include "prune.h"
#include "randomized_response.h"

namespace privkernels::bindings {
namespace {

py::bytes chacha20_block_bytes(const py::bytes& key, const py::bytes& counter_nonce) {
  const std::string key_bytes = key;
  const std::string address_bytes = counter_nonce;
  if (key_bytes.size() != 32 || address_bytes.size() != 16) {
    throw py::value_error("chacha20_block takes a key of 32 bytes and 16 bytes of counter and nonce");
  }
  uint32_t key_words[8], address[4], out[16];
  std::memcpy(key_words, key_bytes.data(), sizeof key_words);
  std::memcpy(address, address_bytes.data(), sizeof address);
  chacha20_block(key_words, address, out);
  return py::bytes(reinterpret_cast<const char*>(out), sizeof out);
}

uint64_t element_bits_of(const py::bytes& key, uint64_t element, uint32_t attempt, uint32_t purpose) {
  const std::string key_bytes = key;
  if (key_bytes.size() != 32) throw py::value_error("a key has 32 bytes");
  uint32_t key_words[8], words[16];
  std::memcpy(key_words, key_bytes.data(), sizeof key_words);
  addressed_block(key_words, element / 8, attempt, purpose, words);
  return element_bits(words, element);
}

py::dict build_info() {
  py::dict compiled, supported;
  py::list isas;
  for (int i = 0; i < kIsaCount; ++i) {
    const Isa isa = static_cast<Isa>(i);
    py::dict entry;
    entry["name"] = isa_name(isa);
    entry["compiled"] = isa_compiled(isa);
    entry["supported"] = isa_supported(isa);
    isas.append(entry);
  }
  const char* reason = "";
  const Isa* chosen = chosen_isa(&reason);
  py::dict info;
  info["compiler"] = PRIVKERNELS_COMPILER;
  info["build_type"] = PRIVKERNELS_BUILD_TYPE;
  info["version"] = PRIVKERNELS_VERSION;
  info["instruction_sets"] = isas;
  info["chosen"] = chosen != nullptr ? py::object(py::str(isa_name(*chosen))) : py::object(py::none());
  info["reason"] = std::string(reason);
  info["cuda_built"] = static_cast<bool>(PRIVKERNELS_HAS_CUDA);
  info["cuda_note"] = PRIVKERNELS_CUDA_NOTE;
  return info;
}

}  // namespace

PYBIND11_MODULE(_cpu, module) {
  module.doc() = "CPU kernels of privkernels; see csrc/include/privkernels for the contracts.";
  module.def("build_info", &build_info);
  module.def("chacha20_block", &chacha20_block_bytes, py::arg("key"), py::arg("counter_nonce"));
  module.def("element_bits", &element_bits_of, py::arg("key"), py::arg("element"), py::arg("attempt"),
             py::arg("purpose"));
  bind_kde_em_cpu(module);
  bind_noise_add_cpu(module);
  bind_noisy_activations_cpu(module);
  bind_em_select_cpu(module);
  bind_randomized_response_cpu(module);
  bind_prune_cpu(module);
  bind_mask_sum_cpu(module);
  bind_kmeans1d_cpu(module);
}

}  // namespace privkernels::bindings
