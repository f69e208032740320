// detkit::soft_nms on the CPU (1704.04503): the best box is taken, the scores of the others are lowered by
// how much they overlap it, and so on. Arithmetic in double, whatever the boxes are.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <limits>
#include <memory>
#include <numeric>
#include <tuple>
#include <vector>

#include "../checks.h"
#include "overlap.h"
#include "sort.h"

namespace detkit::cpu {
namespace {

struct SoftNms {
  bool gaussian;
  double iou_threshold, sigma, min_score;

  double factor(double iou) const {
    if (gaussian) return std::exp(-iou * iou / sigma);
    return iou > iou_threshold ? 1 - iou : 1;
  }
};

struct Candidate {
  RealBox box;
  double score;
  int32_t row;
};

struct Found {
  double score;
  int32_t row;
};

// rows: of one group, ascending, so that of equal scores the lowest row is taken.
template <class T, class S>
void take_group(const T* boxes, const S* scores, const int32_t* rows, int64_t m, const SoftNms& method,
                std::vector<Found>& found) {
  std::vector<Candidate> left;
  left.reserve(size_t(m));
  for (int64_t i = 0; i < m; ++i)
    if (double(scores[rows[i]]) > method.min_score)
      left.push_back({real_box(boxes, rows[i]), double(scores[rows[i]]), rows[i]});
  while (!left.empty()) {
    size_t best = 0;
    for (size_t i = 1; i < left.size(); ++i)
      if (left[i].score > left[best].score) best = i;
    const Candidate taken = left[best];
    found.push_back({taken.score, taken.row});
    size_t kept = 0;
    for (size_t i = 0; i < left.size(); ++i) {
      if (i == best) continue;
      Candidate other = left[i];
      other.score *= method.factor(iou_of(taken.box, other.box));
      if (other.score > method.min_score) left[kept++] = other;
    }
    left.resize(kept);
  }
}

template <class T, class S>
std::tuple<Tensor, Tensor> run(const Tensor& boxes, const Tensor& scores, const int64_t* groups,
                               const SoftNms& method, int32_t score_type) {
  const int64_t n = boxes.size(0);
  std::vector<int32_t> order(n), rows(n);
  std::iota(order.begin(), order.end(), 0);
  std::vector<int64_t> starts = {0, n};
  if (groups && n)
    starts = split_by_group(groups, order.data(), n, rows.data());
  else
    rows = order;
  const int64_t count = int64_t(starts.size()) - 1;
  std::vector<std::vector<Found>> parts(count);
  const T* data = boxes.const_data_ptr<T>();
  const S* values = scores.const_data_ptr<S>();
  torch::stable::parallel_for(0, count, n < 1000 ? count : 1, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g)
      take_group(data, values, rows.data() + starts[g], starts[g + 1] - starts[g], method, parts[g]);
  });

  std::vector<Found> all;
  for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
  std::sort(all.begin(), all.end(), [](const Found& a, const Found& b) {
    const S x = S(a.score), y = S(b.score);  // as they are given back
    return x != y ? x > y : a.row < b.row;
  });
  Tensor indices = cpu_vector(int64_t(all.size()), aoti_torch_dtype_int64());
  Tensor lowered = cpu_vector(int64_t(all.size()), score_type);
  int64_t* index = indices.mutable_data_ptr<int64_t>();
  S* score = lowered.mutable_data_ptr<S>();
  for (size_t i = 0; i < all.size(); ++i) {
    index[i] = all[i].row;
    score[i] = S(all[i].score);
  }
  return {indices, lowered};
}

std::tuple<Tensor, Tensor> soft_nms(const Tensor& boxes, const Tensor& scores,
                                    const std::optional<Tensor>& groups, bool gaussian, double iou_threshold,
                                    double sigma, double min_score) {
  check_boxes(boxes);
  check_scores(boxes, scores);
  check_groups(boxes, groups);
  const int64_t* labels = groups ? groups->const_data_ptr<int64_t>() : nullptr;
  const SoftNms method{gaussian, iou_threshold, sigma, min_score};
  const bool wide = boxes.scalar_type() == ScalarType::Double;
  if (scores.scalar_type() == ScalarType::Double)
    return wide ? run<double, double>(boxes, scores, labels, method, aoti_torch_dtype_float64())
                : run<float, double>(boxes, scores, labels, method, aoti_torch_dtype_float64());
  return wide ? run<double, float>(boxes, scores, labels, method, aoti_torch_dtype_float32())
              : run<float, float>(boxes, scores, labels, method, aoti_torch_dtype_float32());
}

}  // namespace
}  // namespace detkit::cpu

STABLE_TORCH_LIBRARY_IMPL(detkit, CPU, m) { m.impl("soft_nms", TORCH_BOX(&detkit::cpu::soft_nms)); }
