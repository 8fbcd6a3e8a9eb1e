// Arithmetic written once for a float (CUDA threads, scalar code) and for a vector of floats (CPU lanes).
//
// Every operation below is one IEEE 754 operation per lane and nothing is contracted (the build passes
// -ffp-contract=off and -fmad=false), so base, AVX2, AVX-512 and CUDA give the same bits.
#pragma once

#include "platform.h"
#if defined(PK_LANES) && defined(PRIVKERNELS_X86)
#include <immintrin.h>
#endif

namespace privkernels {

PK_HD uint32_t to_bits(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

PK_HD float from_bits(uint32_t bits, float /*like*/) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

PK_HD uint64_t to_bits(double value) {
#if defined(__CUDA_ARCH__)
  return static_cast<uint64_t>(__double_as_longlong(value));
#else
  uint64_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

PK_HD double from_bits(uint64_t bits, double /*like*/) {
#if defined(__CUDA_ARCH__)
  return __longlong_as_double(static_cast<long long>(bits));
#else
  double value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

PK_HD int32_t to_signed(uint32_t bits) { return static_cast<int32_t>(bits); }
PK_HD int32_t to_integer(float value) { return static_cast<int32_t>(value); }
PK_HD float to_float(int32_t value) { return static_cast<float>(value); }

#if defined(PK_LANES)
// Vectors as wide as the instruction set that this file is being compiled for.
typedef float FloatLanes __attribute__((vector_size(PK_LANES * 4)));
typedef uint32_t BitLanes __attribute__((vector_size(PK_LANES * 4)));
typedef int32_t IntLanes __attribute__((vector_size(PK_LANES * 4)));

PK_HD BitLanes to_bits(FloatLanes value) { return reinterpret_cast<BitLanes>(value); }
PK_HD FloatLanes from_bits(BitLanes bits, FloatLanes /*like*/) { return reinterpret_cast<FloatLanes>(bits); }
PK_HD IntLanes to_signed(BitLanes bits) { return reinterpret_cast<IntLanes>(bits); }
// Cut towards zero; the value must fit.
PK_HD IntLanes to_integer(FloatLanes value) { return __builtin_convertvector(value, IntLanes); }
PK_HD FloatLanes to_float(IntLanes value) { return __builtin_convertvector(value, FloatLanes); }
#endif

// Integers are kept in the bits of floats.
PK_HD void load_lanes(const float* from, float& value) { value = *from; }
PK_HD void store_lanes(float* to, float value) { *to = value; }
PK_HD void load_lanes(const float* from, int32_t& value) { value = static_cast<int32_t>(to_bits(*from)); }
PK_HD void store_lanes(float* to, int32_t value) { *to = from_bits(static_cast<uint32_t>(value), 0.0f); }
#if defined(PK_LANES)
PK_HD void load_lanes(const float* from, FloatLanes& value) { __builtin_memcpy(&value, from, sizeof value); }
PK_HD void store_lanes(float* to, FloatLanes value) { __builtin_memcpy(to, &value, sizeof value); }
PK_HD void load_lanes(const float* from, IntLanes& value) { __builtin_memcpy(&value, from, sizeof value); }
PK_HD void store_lanes(float* to, IntLanes value) { __builtin_memcpy(to, &value, sizeof value); }
#endif

template <class F>
PK_HD F constant(float value) {
  return F{} + value;
}

template <class F>
PK_HD F smaller(F a, F b) {
  return a < b ? a : b;
}

template <class F>
PK_HD F larger(F a, F b) {
  return a > b ? a : b;
}

#if defined(PK_LANES) && defined(PRIVKERNELS_X86)
// One instruction each, with the same result, NaN included; the compiler makes two of the choice above. (maskz: GCC 12
// warns of an uninitialized value in the plain intrinsics.)
#if PK_LANES == 16
PK_HD FloatLanes smaller(FloatLanes a, FloatLanes b) { return _mm512_maskz_min_ps(0xffff, a, b); }
PK_HD FloatLanes larger(FloatLanes a, FloatLanes b) { return _mm512_maskz_max_ps(0xffff, a, b); }
#elif PK_LANES == 8
PK_HD FloatLanes smaller(FloatLanes a, FloatLanes b) { return _mm256_min_ps(a, b); }
PK_HD FloatLanes larger(FloatLanes a, FloatLanes b) { return _mm256_max_ps(a, b); }
#elif PK_LANES == 4
PK_HD FloatLanes smaller(FloatLanes a, FloatLanes b) { return _mm_min_ps(a, b); }
PK_HD FloatLanes larger(FloatLanes a, FloatLanes b) { return _mm_max_ps(a, b); }
#endif
#endif

template <class F>
PK_HD F magnitude(F value) {
  return from_bits(to_bits(value) & 0x7fffffffu, value);
}

// 2^(n + f) for f in [-1/2, 1/2] (exact), n in the low nine bits of `shifted`.
template <class F>
PK_HD F exp2_of_parts(F f, F shifted) {
  // 2^f = 1 + f q(f), q a weighted minimax polynomial of degree 4 (relative error 1e-7, less than two roundings).
  F q = constant<F>(1.32749905e-3f);
  q = q * f + 9.6718464e-3f;
  q = q * f + 5.5506926e-2f;
  q = q * f + 2.4022235e-1f;
  q = q * f + 6.93147004e-1f;
  const F power = q * f + 1.0f;
  // The low nine bits of `shifted` hold the integer; moved up, they are added to the exponent.
  return from_bits(to_bits(power) + (to_bits(shifted) << 23), power);
}

// 2^x for x in [-125, 126], relative error below 2.2e-7; exact at 0.
template <class F>
PK_HD F exp2_normal(F x) {
  // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits of the sum.
  const F shift = constant<F>(12582912.0f);
  const F shifted = x + shift;
  return exp2_of_parts(x - (shifted - shift), shifted);
}

// exp2_normal(-x) without the negation; the same bits.
template <class F>
PK_HD F exp2_of_negative(F x) {
  const F shift = constant<F>(12582912.0f);
  const F shifted = shift - x;
  return exp2_of_parts((shift - shifted) - x, shifted);
}

}  // namespace privkernels
