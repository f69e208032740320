// The AVX-512 build of the greedy scan; see hard_nms_avx2.cpp for why the target is set here and not by a
// flag.
#include "hard_nms.h"

#ifdef DETKIT_HAS_X86
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f"))), apply_to = function)
#else
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12 warns of its own avx512fintrin.h
#pragma GCC push_options
#pragma GCC target("avx512f")
#endif

#include "hard_nms_avx2.h"

namespace {

struct Avx512 {
  using scalar = float;
  static constexpr int width = 16;
  using Grid = Avx2;
  using Lanes = Block<float, 16>;

  static __mmask16 may_hit(const Lanes& a, __m512 x1, __m512 y1, __m512 x2, __m512 y2, __m512 scaled) {
    const __m512 w =
        _mm512_sub_ps(_mm512_min_ps(_mm512_loadu_ps(a.x2), x2), _mm512_max_ps(_mm512_loadu_ps(a.x1), x1));
    const __m512 h =
        _mm512_sub_ps(_mm512_min_ps(_mm512_loadu_ps(a.y2), y2), _mm512_max_ps(_mm512_loadu_ps(a.y1), y1));
    const __m512 inter = _mm512_mul_ps(_mm512_max_ps(w, _mm512_setzero_ps()), h);
    return _mm512_cmp_ps_mask(inter, _mm512_add_ps(_mm512_loadu_ps(a.scaled), scaled), _CMP_GE_OQ);
  }

  static bool hit(const Lanes& a, const Box<float>& b, const Threshold<float>& t) {
    const __m512 ax1 = _mm512_loadu_ps(a.x1), ay1 = _mm512_loadu_ps(a.y1);
    const __m512 ax2 = _mm512_loadu_ps(a.x2), ay2 = _mm512_loadu_ps(a.y2), zero = _mm512_setzero_ps();
    const __m512 w =
        _mm512_sub_ps(_mm512_min_ps(ax2, _mm512_set1_ps(b.x2)), _mm512_max_ps(ax1, _mm512_set1_ps(b.x1)));
    const __m512 h =
        _mm512_sub_ps(_mm512_min_ps(ay2, _mm512_set1_ps(b.y2)), _mm512_max_ps(ay1, _mm512_set1_ps(b.y1)));
    const __m512 inter = _mm512_mul_ps(_mm512_max_ps(w, zero), _mm512_max_ps(h, zero));
    const __m512 area = _mm512_mul_ps(_mm512_sub_ps(ax2, ax1), _mm512_sub_ps(ay2, ay1));
    const __m512 all = _mm512_sub_ps(_mm512_add_ps(area, _mm512_set1_ps(b.area)), inter);
    return _mm512_cmp_ps_mask(_mm512_div_ps(inter, all), _mm512_set1_ps(t.exact), _CMP_GT_OQ) != 0;
  }

  static bool test_all(const Lanes* list, int64_t n, const Box<float>& b, const Threshold<float>& t) {
    const __m512 x1 = _mm512_set1_ps(b.x1), y1 = _mm512_set1_ps(b.y1);
    const __m512 x2 = _mm512_set1_ps(b.x2), y2 = _mm512_set1_ps(b.y2), scaled = _mm512_set1_ps(b.scaled);
    int64_t i = 0;
    for (; i + 2 <= n; i += 2) {  // two blocks a branch
      const __mmask16 first = may_hit(list[i], x1, y1, x2, y2, scaled);
      const __mmask16 second = may_hit(list[i + 1], x1, y1, x2, y2, scaled);
      if ((first | second) && (hit(list[i], b, t) || hit(list[i + 1], b, t))) return true;
    }
    return i < n && may_hit(list[i], x1, y1, x2, y2, scaled) && hit(list[i], b, t);
  }
};

}  // namespace

namespace detkit::cpu {

void suppress_avx512(const float* boxes, const int32_t* rows, int64_t m, double threshold, uint8_t* keep) {
  suppress_sorted<Avx512>(boxes, rows, m, threshold, keep);
}

}  // namespace detkit::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // DETKIT_HAS_X86
