// The normal distribution's quantile as a polynomial for each octave of the tail: eight look-ups in a small table in
// place of a logarithm and a root. The same operations in the same order on lanes, one element and CUDA.
#pragma once

#include "lanes.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace privkernels {

// Bit 0 of a word is the sign, bits 2 to 31 are k, which stands for the two-sided tail v = (2 k + 1) / 2^31 (bit 1 has
// no effect). Within an octave of v the quantile of 1 - v / 2 is a polynomial of degree 7 in v's mantissa less 1.5. The
// coefficients are a Chebyshev-weighted least squares fit to scipy.special.ndtri, each rounded to float before the
// next ones are fitted. The low bits of a float's biased exponent are the index: octave e of 2 k + 1 is entry
// (e + 127) mod 32. Entry 30 is v = 1, which the largest k are rounded to.
constexpr int kQuantileDegree = 7, kQuantileOctaves = 32;
// clang-format off
#define PK_QUANTILE_TABLE { \
    {6.05582666f, 5.94326687f, 5.82864475f, 5.71184349f, 5.5927372f, 5.47118568f, 5.34703445f, 5.2201128f, \
     5.09023094f, 4.95717478f, 4.82070589f, 4.68055296f, 4.53640795f, 4.387918f, 4.23467541f, 4.07620668f, \
     3.91195297f, 3.74125242f, 3.56330776f, 3.37714577f, 3.18155956f, 2.97502065f, 2.75554872f, 2.52050209f, \
     2.26622677f, 1.98742783f, 1.67593968f, 1.31801081f, 0.887146473f, 0.318639249f, 0.0f, 6.16642952f}, \
    {-0.107302122f, -0.10923361f, -0.111271568f, -0.113426045f, -0.115708485f, -0.118131936f, -0.120711386f, \
     -0.123464137f, -0.126410276f, -0.129573271f, -0.132980779f, -0.136665583f, -0.140666917f, -0.145032182f, \
     -0.14981927f, -0.155099645f, -0.160962805f, -0.167522445f, -0.174925581f, -0.183365971f, -0.193105131f, \
     -0.204505593f, -0.218086809f, -0.234623313f, -0.25532946f, -0.282236338f, -0.319048852f, -0.373411417f, \
     -0.464409292f, -0.659290671f, 0.0f, -0.105468206f}, \
    {0.0348655097f, 0.0354649425f, 0.0360834971f, 0.0367523879f, 0.0374441929f, 0.0381769426f, 0.0389622822f, \
     0.0397973582f, 0.0406710915f, 0.0416219272f, 0.0426278412f, 0.0437126197f, 0.0448845439f, 0.0461523198f, \
     0.0475364253f, 0.0490283854f, 0.0506828986f, 0.0525029935f, 0.0545212738f, 0.0567842834f, 0.0593263619f, \
     0.0622195266f, 0.0655399561f, 0.0693842769f, 0.0738789663f, 0.0791651383f, 0.085307382f, 0.0918995664f, \
     0.0956789926f, 0.0692628026f, 0.0f, 0.0342996344f}, \
    {-0.0153134391f, -0.0155683914f, -0.0158362146f, -0.0161182005f, -0.016415352f, -0.0167293008f, -0.0170615707f, \
     -0.017413944f, -0.0177885257f, -0.0181879178f, -0.0186145063f, -0.0190717019f, -0.0195633564f, -0.0200939458f, \
     -0.0206682775f, -0.0212930944f, -0.0219757203f, -0.0227256138f, -0.0235534385f, -0.0244740434f, -0.0255043022f, \
     -0.0266671237f, -0.0279905051f, -0.0295120552f, -0.0312802643f, -0.0333575718f, -0.0358296484f, -0.0388387069f, \
     -0.0429823175f, -0.0574740395f, 0.0f, -0.0150704971f}, \
    {0.00752644101f, 0.00761697069f, 0.00779935671f, 0.00786783267f, 0.00804411527f, 0.00822359603f, 0.00835149456f, \
     0.00848229788f, 0.00873508397f, 0.00887605455f, 0.009116753f, 0.00934550632f, 0.00957364496f, 0.00982252881f, \
     0.0100445868f, 0.010422498f, 0.0107072182f, 0.0110574234f, 0.0114606218f, 0.0118598007f, 0.0123608327f, \
     0.0128951278f, 0.0134933423f, 0.0142015256f, 0.015029964f, 0.0159742702f, 0.0170955993f, 0.0184195135f, \
     0.0199604984f, 0.0188737065f, 0.0f, 0.0074050054f}, \
    {-0.00396303087f, -0.00402718876f, -0.00409487775f, -0.00416525546f, -0.00424021529f, -0.00431872951f, \
     -0.00440166378f, -0.00448973104f, -0.00458328472f, -0.00468158722f, -0.00478770258f, -0.00490112882f, \
     -0.00502217282f, -0.00515150977f, -0.00529312063f, -0.00544543238f, -0.00561160687f, -0.00579199661f, \
     -0.00599303609f, -0.00621247245f, -0.00645856513f, -0.00673227478f, -0.00704360381f, -0.00739692617f, \
     -0.00780143682f, -0.00827606115f, -0.00883404445f, -0.00949385762f, -0.0102992374f, -0.0121969907f, 0.0f, \
     -0.00390130654f}, \
    {0.00265461928f, 0.00276636868f, 0.00269949157f, 0.00288913562f, 0.00286921533f, 0.00286191562f, 0.00298456405f, \
     0.00312432996f, 0.00303248479f, 0.00320469704f, 0.00319801853f, 0.00325150299f, 0.00334543153f, 0.00343968091f, \
     0.0036403127f, 0.0035690337f, 0.00375919696f, 0.0038861779f, 0.0039884951f, 0.00420133723f, 0.00432014093f, \
     0.00451307138f, 0.00474548386f, 0.00495891273f, 0.00518187275f, 0.00548914075f, 0.00583680021f, 0.00627442542f, \
     0.00677159848f, 0.00705997599f, 0.0f, 0.00262193731f}, \
    {-0.00157111231f, -0.00159619201f, -0.00162177731f, -0.00165011303f, -0.00167821441f, -0.00170883955f, \
     -0.00174120499f, -0.00177489396f, -0.00181036349f, -0.00185032049f, -0.00189029973f, -0.00193299854f, \
     -0.00197977433f, -0.00203166017f, -0.00208366313f, -0.00214206311f, -0.00220460189f, -0.00227524573f, \
     -0.00234718854f, -0.00243174331f, -0.00252153282f, -0.00262552314f, -0.00273804739f, -0.00286824279f, \
     -0.00302111637f, -0.00318979961f, -0.00338750426f, -0.00362895196f, -0.00390750496f, -0.0043683229f, 0.0f, \
     -0.00154810969f}, \
}
// clang-format on
#if defined(__CUDACC__)
static __device__ const float kDeviceQuantile[kQuantileDegree + 1][kQuantileOctaves] = PK_QUANTILE_TABLE;
#endif
static constexpr float kQuantile[kQuantileDegree + 1][kQuantileOctaves] = PK_QUANTILE_TABLE;
#undef PK_QUANTILE_TABLE

PK_HD float quantile_coefficient(int power, uint32_t octave) {
#if defined(__CUDA_ARCH__)
  return kDeviceQuantile[power][octave];
#else
  return kQuantile[power][octave];
#endif
}

// The normal quantile that 32 random bits stand for.
PK_HD float normal_of_bits(uint32_t bits) {
  const uint32_t tail = to_bits(static_cast<float>(static_cast<int32_t>((bits >> 1) | 1u)));
  const uint32_t octave = (tail >> 23) & (kQuantileOctaves - 1);
  const float x = from_bits((tail & 0x7fffffu) | 0x3f800000u, 0.0f) - 1.5f;
  float p = quantile_coefficient(kQuantileDegree, octave);
  for (int power = kQuantileDegree - 1; power >= 0; --power) p = p * x + quantile_coefficient(power, octave);
  return from_bits(to_bits(p) ^ (bits << 31), 0.0f);
}

#if defined(PK_LANES)
// normal_of_bits of a row; `count` is a multiple of 16.
PK_HD void normals_of_bits(const uint32_t* __restrict bits, int count, float* __restrict out) {
#if defined(__AVX512F__)
  // A look-up in 32 floats is one instruction here, which no compiler finds by itself.
  typedef int32_t SignedLanes __attribute__((vector_size(sizeof(BitLanes))));
  __m512 low[kQuantileDegree + 1], high[kQuantileDegree + 1];
  for (int power = 0; power <= kQuantileDegree; ++power) {
    low[power] = _mm512_loadu_ps(kQuantile[power]);
    high[power] = _mm512_loadu_ps(kQuantile[power] + 16);
  }
  for (int i = 0; i < count; i += 16) {
    BitLanes word;
    __builtin_memcpy(&word, bits + i, sizeof word);
    const SignedLanes odd = reinterpret_cast<SignedLanes>((word >> 1) | 1u);
    const BitLanes tail = reinterpret_cast<BitLanes>(__builtin_convertvector(odd, FloatLanes));
    const __m512i octave = reinterpret_cast<__m512i>(tail >> 23);  // its low 5 bits are looked at
    const FloatLanes x = reinterpret_cast<FloatLanes>((tail & 0x7fffffu) | 0x3f800000u) - 1.5f;
    FloatLanes p = _mm512_permutex2var_ps(low[kQuantileDegree], octave, high[kQuantileDegree]);
#pragma GCC unroll 8
    for (int power = kQuantileDegree - 1; power >= 0; --power) {
      p = p * x + reinterpret_cast<FloatLanes>(_mm512_permutex2var_ps(low[power], octave, high[power]));
    }
    const BitLanes signed_p = reinterpret_cast<BitLanes>(p) ^ (word << 31);
    __builtin_memcpy(out + i, &signed_p, sizeof signed_p);
  }
#else
  for (int i = 0; i < count; ++i) out[i] = normal_of_bits(bits[i]);
#endif
}
#endif

}  // namespace privkernels
