// Greedy suppression of one list of boxes: the face between the op (hard_nms.cpp) and its two builds.
#pragma once

#include <cstdint>

#include "capability.h"

namespace detkit::cpu {

// boxes: (n, 4) x1 y1 x2 y2. rows: m rows of boxes, best first (nullptr: 0 .. m-1). Sets keep[row] to 1 for
// the boxes that stay and to 0 for the others; rows that are not listed are not touched.
template <class T>
using Suppress = void(const T* boxes, const int32_t* rows, int64_t m, double iou_threshold, uint8_t* keep);

Suppress<float> suppress_portable;
Suppress<double> suppress_double;
#ifdef DETKIT_HAS_X86
Suppress<float> suppress_avx2;
Suppress<float> suppress_avx512;
#endif

}  // namespace detkit::cpu
