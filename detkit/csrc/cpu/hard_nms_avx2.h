// Eight lanes. To be included where the target is at least AVX2: by the AVX2 build, and by the AVX-512 one
// for its grid, whose cells seldom hold more boxes.
#pragma once

#include <immintrin.h>

#include "hard_nms_kernel.h"

namespace {

struct Avx2 {
  using scalar = float;
  static constexpr int width = 8;
  using Grid = Avx2;
  using Lanes = Block<float, 8>;

  static __m256 may_hit(const Lanes& a, __m256 x1, __m256 y1, __m256 x2, __m256 y2, __m256 scaled) {
    const __m256 w =
        _mm256_sub_ps(_mm256_min_ps(_mm256_loadu_ps(a.x2), x2), _mm256_max_ps(_mm256_loadu_ps(a.x1), x1));
    const __m256 h =
        _mm256_sub_ps(_mm256_min_ps(_mm256_loadu_ps(a.y2), y2), _mm256_max_ps(_mm256_loadu_ps(a.y1), y1));
    const __m256 inter = _mm256_mul_ps(_mm256_max_ps(w, _mm256_setzero_ps()), h);
    return _mm256_cmp_ps(inter, _mm256_add_ps(_mm256_loadu_ps(a.scaled), scaled), _CMP_GE_OQ);
  }

  static bool hit(const Lanes& a, const Box<float>& b, const Threshold<float>& t) {
    const __m256 ax1 = _mm256_loadu_ps(a.x1), ay1 = _mm256_loadu_ps(a.y1);
    const __m256 ax2 = _mm256_loadu_ps(a.x2), ay2 = _mm256_loadu_ps(a.y2), zero = _mm256_setzero_ps();
    const __m256 w =
        _mm256_sub_ps(_mm256_min_ps(ax2, _mm256_set1_ps(b.x2)), _mm256_max_ps(ax1, _mm256_set1_ps(b.x1)));
    const __m256 h =
        _mm256_sub_ps(_mm256_min_ps(ay2, _mm256_set1_ps(b.y2)), _mm256_max_ps(ay1, _mm256_set1_ps(b.y1)));
    const __m256 inter = _mm256_mul_ps(_mm256_max_ps(w, zero), _mm256_max_ps(h, zero));
    const __m256 area = _mm256_mul_ps(_mm256_sub_ps(ax2, ax1), _mm256_sub_ps(ay2, ay1));
    const __m256 all = _mm256_sub_ps(_mm256_add_ps(area, _mm256_set1_ps(b.area)), inter);
    const __m256 over = _mm256_cmp_ps(_mm256_div_ps(inter, all), _mm256_set1_ps(t.exact), _CMP_GT_OQ);
    return _mm256_movemask_ps(over) != 0;
  }

  static bool test(const Lanes& a, const Box<float>& b, const Threshold<float>& t) {
    const __m256 pass = may_hit(a, _mm256_set1_ps(b.x1), _mm256_set1_ps(b.y1), _mm256_set1_ps(b.x2),
                                _mm256_set1_ps(b.y2), _mm256_set1_ps(b.scaled));
    return _mm256_movemask_ps(pass) && hit(a, b, t);
  }

  static bool test_all(const Lanes* list, int64_t n, const Box<float>& b, const Threshold<float>& t) {
    const __m256 x1 = _mm256_set1_ps(b.x1), y1 = _mm256_set1_ps(b.y1);
    const __m256 x2 = _mm256_set1_ps(b.x2), y2 = _mm256_set1_ps(b.y2), scaled = _mm256_set1_ps(b.scaled);
    int64_t i = 0;
    for (; i + 2 <= n; i += 2) {  // two blocks a branch
      const __m256 first = may_hit(list[i], x1, y1, x2, y2, scaled);
      const __m256 second = may_hit(list[i + 1], x1, y1, x2, y2, scaled);
      if (_mm256_movemask_ps(_mm256_or_ps(first, second)) && (hit(list[i], b, t) || hit(list[i + 1], b, t)))
        return true;
    }
    return i < n && test(list[i], b, t);
  }
};

}  // namespace
