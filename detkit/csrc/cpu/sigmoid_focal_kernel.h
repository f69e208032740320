// f(z) = p^gamma L with p = sigmoid(z), L = softplus(z), and f'(z) = p^gamma (gamma (1 - p) L + p).
//
// Plain loops without branches or calls, which the compiler turns into the vectors of the target that the
// including file has set. DETKIT_MADD(a, b, c) is a * b + c, fused where the target has it. Everything is in
// an unnamed namespace, so that the linker can't take one copy for another.
//
// With e = exp(-|z|): L = max(z, 0) + log1p(e), p = 1 / (1 + e) or e / (1 + e). No large number is ever
// subtracted from another, so each is right to some 1e-7 of its own size. NaN gives NaN.
#pragma once

#include <cstdint>
#include <cstring>

#include "sigmoid_focal.h"

namespace {

using detkit::cpu::kFocalLanes;

// exp(-a) for a >= 0; 0 from 87 on, where the result would be denormal.
inline float exp_negative(float a) {
  const float x = a < 87.0f ? -a : -87.0f;
  const float shifted =
      DETKIT_MADD(x, 1.44269504f, 12582912.0f);  // 1.5 * 2^23: the sum rounds to a whole number
  const float whole = shifted - 12582912.0f;
  float r = DETKIT_MADD(whole, -0.693359375f, x);  // ln 2 in two parts
  r = DETKIT_MADD(whole, 2.12194440e-4f, r);
  float y = 1.383684563e-03f;  // minimax over |r| <= ln 2 / 2
  y = DETKIT_MADD(y, r, 8.374815803e-03f);
  y = DETKIT_MADD(y, r, 4.166822558e-02f);
  y = DETKIT_MADD(y, r, 1.666642017e-01f);
  y = DETKIT_MADD(y, r, 4.999999208e-01f);
  y = DETKIT_MADD(y, r, 1.000000036e+00f);
  y = DETKIT_MADD(y, r, 1.000000001e+00f);
  const int32_t exponent = (static_cast<int32_t>(whole) + 127) << 23;
  float scale;
  std::memcpy(&scale, &exponent, sizeof(scale));
  return a < 87.0f ? y * scale : 0.0f;
}

// log(1 + e) for 0 <= e <= 1.
inline float log_one_plus(float e) {
  float y = -3.244021041e-03f;  // minimax of log(1 + e) / e
  y = DETKIT_MADD(y, e, 1.985144373e-02f);
  y = DETKIT_MADD(y, e, -5.695949926e-02f);
  y = DETKIT_MADD(y, e, 1.060365134e-01f);
  y = DETKIT_MADD(y, e, -1.530559048e-01f);
  y = DETKIT_MADD(y, e, 1.967593853e-01f);
  y = DETKIT_MADD(y, e, -2.495413351e-01f);
  y = DETKIT_MADD(y, e, 3.332996240e-01f);
  y = DETKIT_MADD(y, e, -4.999990242e-01f);
  y = DETKIT_MADD(y, e, 9.999999953e-01f);
  return y * e;
}

struct FocalTerms {
  float p, complement, softplus, power;
};

struct GammaZero {
  static float power(float, float, float) { return 1.0f; }
};
struct GammaOne {
  static float power(float p, float, float) { return p; }
};
struct GammaTwo {
  static float power(float p, float, float) { return p * p; }
};
struct GammaAny {  // p^gamma = exp(gamma log p), and -log p = softplus(-z)
  static float power(float, float minus_log_p, float gamma) { return exp_negative(gamma * minus_log_p); }
};

template <class Gamma>
inline FocalTerms focal_terms(float z, float gamma) {
  const float a = z < 0.0f ? -z : z;
  const float e = exp_negative(a), l = log_one_plus(e);
  const float large = 1.0f / (1.0f + e), small = e * large;
  const float above = z < 0.0f ? 0.0f : z, below = z < 0.0f ? -z : 0.0f;  // NaN goes into `above`
  FocalTerms t;
  t.p = z < 0.0f ? small : large;
  t.complement = z < 0.0f ? large : small;
  t.softplus = above + l;
  t.power = Gamma::power(t.p, below + l, gamma);
  return t;
}

template <class Gamma>
double sum_of(const float* z, int n, float gamma) {
  float lanes[kFocalLanes] = {};
  // Pointers, not indices: under -fwrapv, which Python's flags bring, i + j would not become a vector.
  for (const float* end = z + n; z != end; z += kFocalLanes) {
    for (int j = 0; j < kFocalLanes; ++j) {
      const FocalTerms t = focal_terms<Gamma>(z[j], gamma);
      lanes[j] += t.power * t.softplus;
    }
  }
  double total = 0;
  for (const float lane : lanes) total += lane;
  return total;
}

template <class Gamma>
void slope_of(const float* __restrict z, int n, float gamma, float scale, float* __restrict out) {
  for (const float* end = z + n; z != end; z += kFocalLanes, out += kFocalLanes) {
    for (int j = 0; j < kFocalLanes; ++j) {
      const FocalTerms t = focal_terms<Gamma>(z[j], gamma);
      const float slope = t.power * DETKIT_MADD(gamma * t.complement, t.softplus, t.p);
      out[j] = scale * (z[j] == z[j] ? slope : z[j]);
    }
  }
}

inline double focal_sum(const float* z, int n, float gamma) {
  if (gamma == 0.0f) return sum_of<GammaZero>(z, n, gamma);
  if (gamma == 1.0f) return sum_of<GammaOne>(z, n, gamma);
  if (gamma == 2.0f) return sum_of<GammaTwo>(z, n, gamma);
  return sum_of<GammaAny>(z, n, gamma);
}

inline void focal_slope(const float* __restrict z, int n, float gamma, float scale, float* __restrict out) {
  if (gamma == 0.0f) return slope_of<GammaZero>(z, n, gamma, scale, out);
  if (gamma == 1.0f) return slope_of<GammaOne>(z, n, gamma, scale, out);
  if (gamma == 2.0f) return slope_of<GammaTwo>(z, n, gamma, scale, out);
  slope_of<GammaAny>(z, n, gamma, scale, out);
}

}  // namespace
