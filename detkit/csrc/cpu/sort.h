// Orders without comparison: scores by radix, groups by counting. All stable.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

namespace detkit::cpu {

// Descending scores as ascending keys: NaN first, -0 and +0 equal, as torch.sort(descending=True) has it.
inline uint32_t descending_key(float score) {
  if (score != score) return 0;
  if (score == 0) score = 0;  // drops the sign
  uint32_t bits;
  std::memcpy(&bits, &score, sizeof(bits));
  const uint32_t ascending = bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
  return ~ascending;  // never 0: only a NaN's bits would give it
}

// order[0 .. n-1]: indices by descending score, then by index.
inline void argsort_descending(const float* scores, int64_t n, int32_t* order) {
  if (n <= 128) {  // the histograms below would take longer
    uint64_t pairs[128];
    for (int64_t i = 0; i < n; ++i) pairs[i] = uint64_t(descending_key(scores[i])) << 32 | uint64_t(i);
    std::sort(pairs, pairs + n);
    for (int64_t i = 0; i < n; ++i) order[i] = int32_t(pairs[i] & 0xffffffffu);
    return;
  }
  const int digit = n < 2048 ? 8 : 11, passes = (32 + digit - 1) / digit, radix = 1 << digit;
  std::unique_ptr<uint64_t[]> pairs(new uint64_t[2 * n]);  // key above, index below
  std::vector<int32_t> count(size_t(passes) * radix, 0);
  uint64_t *from = pairs.get(), *to = from + n;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t key = descending_key(scores[i]);
    from[i] = uint64_t(key) << 32 | uint64_t(i);
    for (int pass = 0; pass < passes; ++pass)
      ++count[size_t(pass) * radix + ((key >> (pass * digit)) & uint32_t(radix - 1))];
  }
  for (int pass = 0; pass < passes; ++pass) {
    int32_t* c = count.data() + size_t(pass) * radix;
    const int shift = 32 + pass * digit;
    if (c[(from[0] >> shift) & uint64_t(radix - 1)] == n) continue;  // all have this digit
    int32_t sum = 0;
    for (int d = 0; d < radix; ++d) sum += std::exchange(c[d], sum);
    for (int64_t i = 0; i < n; ++i) to[c[(from[i] >> shift) & uint64_t(radix - 1)]++] = from[i];
    std::swap(from, to);
  }
  for (int64_t i = 0; i < n; ++i) order[i] = int32_t(from[i] & 0xffffffffu);
}

inline void argsort_descending(const double* scores, int64_t n, int32_t* order) {
  std::iota(order, order + n, 0);
  std::stable_sort(order, order + n, [=](int32_t a, int32_t b) {
    const double x = scores[a], y = scores[b];
    return x != x ? y == y : x > y;  // NaN before all numbers
  });
}

// Splits `order` by group and keeps the order inside each. rows: the split list. Returns the starts, n at the
// end.
inline std::vector<int64_t> split_by_group(const int64_t* groups, const int32_t* order, int64_t n,
                                           int32_t* rows) {
  const auto bounds = std::minmax_element(groups, groups + n);
  const int64_t low = *bounds.first;
  const uint64_t span = uint64_t(*bounds.second) - uint64_t(low);
  std::vector<int64_t> starts;
  if (span < uint64_t(std::max<int64_t>(4 * n, 1024))) {
    starts.assign(size_t(span) + 2, 0);
    for (int64_t i = 0; i < n; ++i) ++starts[size_t(groups[i] - low) + 1];
    std::partial_sum(starts.begin(), starts.end(), starts.begin());
    std::vector<int64_t> next(starts.begin(), starts.end() - 1);
    for (int64_t p = 0; p < n; ++p) rows[next[size_t(groups[order[p]] - low)]++] = order[p];
    return starts;
  }
  std::copy(order, order + n, rows);
  std::stable_sort(rows, rows + n, [=](int32_t a, int32_t b) { return groups[a] < groups[b]; });
  for (int64_t p = 0; p < n; ++p)
    if (p == 0 || groups[rows[p]] != groups[rows[p - 1]]) starts.push_back(p);
  starts.push_back(n);
  return starts;
}

}  // namespace detkit::cpu
