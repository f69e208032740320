// The greedy scan, written once over a vector type V and built thrice: portable, AVX2 and AVX-512.
//
// Everything is in an unnamed namespace, so that the linker can't take one copy for another.
//
// The result is that of the textbook loop, bit for bit:
//     inter / (area_kept + area - inter) > threshold    in the type of the boxes, threshold in double.
// What makes it fast, and why it stays exact:
//  - A quotient of type T is > a double threshold exactly if it is > the largest T that is <= the threshold.
//  - A box with NaN or infinite area, or without positive width, height and area, gives a quotient that is 0
//    or NaN with every other box. For a threshold >= 0 it neither suppresses nor is suppressed.
//  - Before dividing: inter >= k (area_kept + area), k = t / (1 + t), with a slack of 1e-5 that is wide
//    against rounding. Only blocks that pass get the exact quotient.
//  - Candidates are compared with kept boxes only, which lie in vector-wide blocks.
//  - Many kept boxes go into a grid by size and place; see Grid.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace {

template <class T>
struct Box {
  T x1, y1, x2, y2, area, scaled;  // scaled: k * area, 0 where it could be denormal
};

template <class T, int W>
struct alignas(W * sizeof(T)) Block {  // aligned, so that no row lies in two cache lines
  T x1[W], y1[W], x2[W], y2[W], scaled[W];

  // No box overlaps an empty lane.
  void clear() {
    for (int i = 0; i < W; ++i) {
      x1[i] = y1[i] = std::numeric_limits<T>::infinity();
      x2[i] = y2[i] = -std::numeric_limits<T>::infinity();
      scaled[i] = 0;
    }
  }

  void put(int lane, const Box<T>& b) {
    x1[lane] = b.x1;
    y1[lane] = b.y1;
    x2[lane] = b.x2;
    y2[lane] = b.y2;
    scaled[lane] = b.scaled;
  }
};

template <class T>
struct Threshold {
  T exact;       // the largest T that is <= the threshold
  T k;           // of the filter
  double value;  // the exact one again, for the geometry of the grid

  explicit Threshold(double threshold) {
    exact = static_cast<T>(threshold);
    if (static_cast<double>(exact) > threshold)
      exact = std::nextafter(exact, -std::numeric_limits<T>::infinity());
    value = exact;
    // A tiny threshold leaves the filter open; its product with an area could be denormal.
    k = value < 1e-6 ? T(0) : static_cast<T>(value / (1 + value) * (1 - 1e-5));
  }
};

// Boxes that can take part at all get their area; the others return false.
template <class T>
inline bool read_box(const T* p, const Threshold<T>& t, Box<T>* b) {
  b->x1 = p[0];
  b->y1 = p[1];
  b->x2 = p[2];
  b->y2 = p[3];
  const T w = b->x2 - b->x1, h = b->y2 - b->y1;
  b->area = w * h;
  b->scaled = b->area > T(1e-30) ? t.k * b->area : T(0);
  return w > 0 && h > 0 && b->area > 0 && b->area <= std::numeric_limits<T>::max();
}

// Kept boxes by size and place. IoU > t has two consequences, both by 1-D overlap:
//  - the longer sides of the two boxes have a ratio of more than t, so only few levels (powers of two of the
//    longer side) are looked at;
//  - the candidate's centre is at most (1/t - 1) / 2 of the kept box's side away from its centre. The kept
//    box is filed under each cell within that reach, and a candidate looks into one cell a level.
// Cells are hashed without a key: a collision costs time and changes nothing, as each box is tested anyway.
// The slacks of 1e-4 are wide against rounding. For T = double the reach also gets some ulps of the centre.
template <class T, int W>
class Grid {
 public:
  using Cells = Block<T, W>;
  struct Node {
    Cells block;
    int32_t next;
    int32_t used;
  };

  void reset(int64_t expected, double threshold) {
    int bits = 10;
    while (bits < 18 && (int64_t(1) << bits) < expected) ++bits;
    shift_ = 64 - bits;
    heads_.assign(size_t(1) << bits, -1);
    nodes_.clear();
    std::memset(count_, 0, sizeof(count_));
    low_ = threshold * (1 - 1e-4);
    high_ = (1 + 1e-4) / threshold;
    reach_ = (1 / threshold - 1) / 2 * (1 + 1e-4) + 1e-4;
  }

  // Keeps some memory for the thread's next call: fresh pages would cost more than the search.
  void release() {
    constexpr size_t some = size_t(4) << 20;
    if (nodes_.capacity() * sizeof(Node) > some) std::vector<Node>().swap(nodes_);
  }

  void insert(const Box<T>& b) {
    const int level = level_of(side(b));
    const double scale = scale_of(level);
    const double cx = center(b.x1, b.x2), cy = center(b.y1, b.y2);
    const double rx = reach_ * (double(b.x2) - b.x1) + 1e-15 * std::fabs(cx);
    const double ry = reach_ * (double(b.y2) - b.y1) + 1e-15 * std::fabs(cy);
    const int64_t x_end = cell(cx + rx, scale), y_end = cell(cy + ry, scale);
    for (int64_t y = cell(cy - ry, scale); y <= y_end; ++y)
      for (int64_t x = cell(cx - rx, scale); x <= x_end; ++x) file(slot(level, x, y), b);
    ++count_[level];
  }

  // Calls test(block) for the blocks in which a box with IoU > threshold could be, until one says true.
  template <class F>
  bool any(const Box<T>& b, const F& test) const {
    const double length = side(b), cx = center(b.x1, b.x2), cy = center(b.y1, b.y2);
    const int first = level_of(length * low_), own = level_of(length), last = level_of(length * high_);
    if (hit_level(own, cx, cy, test)) return true;  // the likeliest
    for (int level = first; level <= last; ++level)
      if (level != own && hit_level(level, cx, cy, test)) return true;
    return false;
  }

 private:
  template <class F>
  bool hit_level(int level, double cx, double cy, const F& test) const {
    if (!count_[level]) return false;
    const double scale = scale_of(level);
    int32_t i = heads_[slot(level, cell(cx, scale), cell(cy, scale))];
    for (; i >= 0; i = nodes_[i].next)
      if (test(nodes_[i].block)) return true;
    return false;
  }

  static double side(const Box<T>& b) { return std::max(double(b.x2) - b.x1, double(b.y2) - b.y1); }
  static double center(T a, T b) { return 0.5 * double(a) + 0.5 * double(b); }

  static int level_of(double length) {  // its binary exponent, biased
    uint64_t bits;
    std::memcpy(&bits, &length, sizeof(bits));
    return int(bits >> 52) & 0x7ff;
  }

  static double scale_of(int level) {  // 1 / the cell's side, which is the power of two at or below the box's
    const uint64_t bits = uint64_t(std::min(std::max(2046 - level, 1), 2046)) << 52;
    double scale;
    std::memcpy(&scale, &bits, sizeof(scale));
    return scale;
  }

  static int64_t cell(double place, double scale) {
    const double c = place * scale;
    const double limit = 1e15;  // the clamp keeps the order, so a far box only shares its cell
    const int64_t whole = int64_t(std::min(std::max(c, -limit), limit));
    return whole - (c < double(whole));
  }

  size_t slot(int level, int64_t x, int64_t y) const {
    uint64_t h = uint64_t(x) * 0x9E3779B97F4A7C15u;
    h = (h ^ (h >> 29)) + uint64_t(y) * 0xC2B2AE3D27D4EB4Fu;
    h = (h ^ (h >> 32)) + uint64_t(level) * 0x165667B19E3779F9u;
    return size_t((h * 0xD6E8FEB86659FD93u) >> shift_);
  }

  void file(size_t slot, const Box<T>& b) {
    const int32_t head = heads_[slot];
    if (head >= 0 && nodes_[head].used < W) {
      nodes_[head].block.put(nodes_[head].used++, b);
      return;
    }
    Node node;
    node.block.clear();
    node.block.put(0, b);
    node.used = 1;
    node.next = head;
    heads_[slot] = int32_t(nodes_.size());
    nodes_.push_back(node);
  }

  std::vector<int32_t> heads_;
  std::vector<Node> nodes_;
  uint32_t count_[2048];
  double low_, high_, reach_;
  int shift_;
};

// The loop as in the textbook, for a threshold below 0, where boxes that don't touch suppress each other.
template <class T>
void suppress_plain(const T* boxes, const int32_t* rows, int64_t m, double threshold, uint8_t* keep) {
  std::vector<int32_t> kept;
  for (int64_t p = 0; p < m; ++p) {
    const int32_t row = rows ? rows[p] : int32_t(p);
    const T* b = boxes + 4 * int64_t(row);
    const T area = (b[2] - b[0]) * (b[3] - b[1]);
    bool stays = true;
    for (size_t i = 0; i < kept.size() && stays; ++i) {
      const T* a = boxes + 4 * int64_t(kept[i]);
      // std::max and std::min give their first argument where the other is NaN: the kept box's side.
      const T w = std::max(T(0), std::min(a[2], b[2]) - std::max(a[0], b[0]));
      const T h = std::max(T(0), std::min(a[3], b[3]) - std::max(a[1], b[1]));
      const T inter = w * h;
      const T iou = inter / ((a[2] - a[0]) * (a[3] - a[1]) + area - inter);
      stays = !(double(iou) > threshold);
    }
    keep[row] = stays;
    if (stays) kept.push_back(row);
  }
}

// V: scalar, width, and test_all(blocks, count, box, threshold) -> does any box of the blocks suppress this
// one. V::Grid: the lanes that the grid works with, with test(block, box, threshold).
template <class V>
void suppress_sorted(const typename V::scalar* boxes, const int32_t* rows, int64_t m, double threshold,
                     uint8_t* keep) {
  using T = typename V::scalar;
  using Near = typename V::Grid;
  constexpr int W = V::width;
  constexpr int64_t linear_limit = 48 * W;  // kept boxes; from there on the grid pays
  if (threshold < 0) return suppress_plain(boxes, rows, m, threshold, keep);

  static thread_local Grid<T, Near::width> grid;
  static thread_local std::vector<Block<T, W>> list;  // kept: many small groups come one after the other
  const Threshold<T> t(threshold);
  const bool grid_fits = t.value >= 0.25;
  bool use_grid = false;
  list.clear();
  int64_t kept = 0;
  for (int64_t p = 0; p < m; ++p) {
    const int32_t row = rows ? rows[p] : int32_t(p);
    Box<T> b;
    keep[row] = 1;
    // An IoU is never more than 1 (nor than NaN); written so that NaN takes this way too.
    if (!read_box(boxes + 4 * int64_t(row), t, &b) || !(threshold < 1)) continue;
    if (use_grid) {
      if (grid.any(b, [&](const auto& block) { return Near::test(block, b, t); }))
        keep[row] = 0;
      else
        grid.insert(b);
      continue;
    }
    if (V::test_all(list.data(), int64_t(list.size()), b, t)) {
      keep[row] = 0;
      continue;
    }
    if (kept % W == 0) {
      list.emplace_back();
      list.back().clear();
    }
    list.back().put(int(kept++ % W), b);
    if (!grid_fits || kept < linear_limit) continue;
    use_grid = true;
    grid.reset(m - p, t.value);
    for (int64_t i = 0; i < kept; ++i) {
      const auto& l = list[size_t(i / W)];
      const int j = int(i % W);
      grid.insert(Box<T>{l.x1[j], l.y1[j], l.x2[j], l.y2[j], T(0), l.scaled[j]});
    }
  }
  if (use_grid) grid.release();
  if (int64_t(list.size()) * W > 2 * linear_limit) std::vector<Block<T, W>>().swap(list);
}

}  // namespace
