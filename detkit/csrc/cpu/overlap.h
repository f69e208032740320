// Overlap of two boxes in double, for the suppression methods that need not equal torchvision bit for bit.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace detkit::cpu {

struct RealBox {
  double x1, y1, x2, y2, area;
};

template <class T>
RealBox real_box(const T* boxes, int64_t row) {
  const T* b = boxes + 4 * row;
  const double x1 = b[0], y1 = b[1], x2 = b[2], y2 = b[3];
  return {x1, y1, x2, y2, (x2 - x1) * (y2 - y1)};
}

// Intersection over union; 0 where nothing overlaps or a coordinate is not finite.
inline double iou_of(const RealBox& a, const RealBox& b) {
  const double w = std::min(a.x2, b.x2) - std::max(a.x1, b.x1);
  const double h = std::min(a.y2, b.y2) - std::max(a.y1, b.y1);
  if (!(w > 0 && h > 0)) return 0;
  const double inter = w * h, iou = inter / (a.area + b.area - inter);
  return std::isfinite(iou) ? iou : 0;
}

// Squared distance of the centres over the squared diagonal of the hull (1911.08287, equation 6).
inline double distance_of(const RealBox& a, const RealBox& b) {
  const double dx = (a.x1 + a.x2 - b.x1 - b.x2) / 2, dy = (a.y1 + a.y2 - b.y1 - b.y2) / 2;
  const double w = std::max(a.x2, b.x2) - std::min(a.x1, b.x1);
  const double h = std::max(a.y2, b.y2) - std::min(a.y1, b.y1);
  return (dx * dx + dy * dy) / (w * w + h * h);
}

}  // namespace detkit::cpu
