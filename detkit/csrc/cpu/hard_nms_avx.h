// The greedy scan on vectors of floats: written once over the instructions of a width. Eight lanes are for
// the AVX2 build, and in the AVX-512 one for the grid, whose cells seldom hold more boxes.
#pragma once

#include <immintrin.h>

#include "hard_nms_kernel.h"

namespace {

struct Eight {
  using Floats = __m256;
  using Mask = __m256;
  static constexpr int width = 8;
  static Floats load(const float* p) { return _mm256_loadu_ps(p); }
  static Floats all(float x) { return _mm256_set1_ps(x); }
  static Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  static Floats sub(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
  static Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static Floats div(Floats a, Floats b) { return _mm256_div_ps(a, b); }
  static Floats min(Floats a, Floats b) { return _mm256_min_ps(a, b); }
  static Floats max(Floats a, Floats b) { return _mm256_max_ps(a, b); }
  static Mask at_least(Floats a, Floats b) { return _mm256_cmp_ps(a, b, _CMP_GE_OQ); }
  static Mask above(Floats a, Floats b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
  static Mask either(Mask a, Mask b) { return _mm256_or_ps(a, b); }
  static bool any(Mask m) { return _mm256_movemask_ps(m) != 0; }
};

template <class V>
struct Avx {
  using scalar = float;
  static constexpr int width = V::width;
  using Grid = Avx<Eight>;
  using Lanes = Block<float, width>;
  using Floats = typename V::Floats;

  // A box in every lane, for the filter.
  struct Candidate {
    Floats x1, y1, x2, y2, scaled;
    explicit Candidate(const Box<float>& b)
        : x1(V::all(b.x1)), y1(V::all(b.y1)), x2(V::all(b.x2)), y2(V::all(b.y2)), scaled(V::all(b.scaled)) {}
  };

  static typename V::Mask may_hit(const Lanes& a, const Candidate& b) {
    const Floats w = V::sub(V::min(V::load(a.x2), b.x2), V::max(V::load(a.x1), b.x1));
    const Floats h = V::sub(V::min(V::load(a.y2), b.y2), V::max(V::load(a.y1), b.y1));
    const Floats inter = V::mul(V::max(w, V::all(0)), h);
    return V::at_least(inter, V::add(V::load(a.scaled), b.scaled));
  }

  static bool hit(const Lanes& a, const Box<float>& b, const Threshold<float>& t) {
    const Floats x1 = V::load(a.x1), y1 = V::load(a.y1), x2 = V::load(a.x2), y2 = V::load(a.y2);
    const Floats w = V::sub(V::min(x2, V::all(b.x2)), V::max(x1, V::all(b.x1)));
    const Floats h = V::sub(V::min(y2, V::all(b.y2)), V::max(y1, V::all(b.y1)));
    const Floats inter = V::mul(V::max(w, V::all(0)), V::max(h, V::all(0)));
    const Floats area = V::mul(V::sub(x2, x1), V::sub(y2, y1));
    const Floats both = V::sub(V::add(area, V::all(b.area)), inter);
    return V::any(V::above(V::div(inter, both), V::all(t.exact)));
  }

  static bool test(const Lanes& a, const Box<float>& b, const Threshold<float>& t) {
    return V::any(may_hit(a, Candidate(b))) && hit(a, b, t);
  }

  static bool test_all(const Lanes* list, int64_t n, const Box<float>& b, const Threshold<float>& t) {
    const Candidate candidate(b);
    int64_t i = 0;
    for (; i + 2 <= n; i += 2) {  // two blocks a branch
      if (V::any(V::either(may_hit(list[i], candidate), may_hit(list[i + 1], candidate))) &&
          (hit(list[i], b, t) || hit(list[i + 1], b, t)))
        return true;
    }
    return i < n && test(list[i], b, t);
  }
};

}  // namespace
