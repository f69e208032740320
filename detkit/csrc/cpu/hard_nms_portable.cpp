// Any CPU and float64: plain loops of fixed length, which compilers turn into the vectors of the base target.
#include "hard_nms.h"
#include "hard_nms_kernel.h"

namespace {

template <class T, int W>
struct Portable {
  using scalar = T;
  static constexpr int width = W;
  using Grid = Portable;
  using Lanes = Block<T, W>;

  static bool may_hit(const Lanes& a, const Box<T>& b, const Threshold<T>&) {
    int any = 0;
    for (int i = 0; i < W; ++i) {
      const T w = std::min(a.x2[i], b.x2) - std::max(a.x1[i], b.x1);
      const T h = std::min(a.y2[i], b.y2) - std::max(a.y1[i], b.y1);
      any |= (w > 0 ? w : T(0)) * h >= a.scaled[i] + b.scaled;
    }
    return any;
  }

  static bool hit(const Lanes& a, const Box<T>& b, const Threshold<T>& t) {
    for (int i = 0; i < W; ++i) {
      const T w = std::max(T(0), std::min(a.x2[i], b.x2) - std::max(a.x1[i], b.x1));
      const T h = std::max(T(0), std::min(a.y2[i], b.y2) - std::max(a.y1[i], b.y1));
      const T inter = w * h, area = (a.x2[i] - a.x1[i]) * (a.y2[i] - a.y1[i]);
      if (inter / (area + b.area - inter) > t.exact) return true;
    }
    return false;
  }

  static bool test(const Lanes& a, const Box<T>& b, const Threshold<T>& t) {
    return may_hit(a, b, t) && hit(a, b, t);
  }

  static bool test_all(const Lanes* list, int64_t n, const Box<T>& b, const Threshold<T>& t) {
    for (int64_t i = 0; i < n; ++i)
      if (test(list[i], b, t)) return true;
    return false;
  }
};

}  // namespace

namespace detkit::cpu {

void suppress_portable(const float* boxes, const int32_t* rows, int64_t m, double threshold, uint8_t* keep) {
  suppress_sorted<Portable<float, 4>>(boxes, rows, m, threshold, keep);
}

void suppress_double(const double* boxes, const int32_t* rows, int64_t m, double threshold, uint8_t* keep) {
  suppress_sorted<Portable<double, 4>>(boxes, rows, m, threshold, keep);
}

}  // namespace detkit::cpu
