// detkit::diou_nms on the CPU (1911.08287, section 3.4): greedy suppression by IoU less the distance of the
// centres. Arithmetic in double.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <memory>
#include <numeric>
#include <vector>

#include "../checks.h"
#include "overlap.h"
#include "sort.h"

namespace detkit::cpu {
namespace {

template <class T>
void suppress_group(const T* boxes, const int32_t* rows, int64_t m, double threshold, uint8_t* keep) {
  std::vector<RealBox> kept;
  for (int64_t i = 0; i < m; ++i) {
    const RealBox box = real_box(boxes, rows[i]);
    const bool goes = std::any_of(kept.begin(), kept.end(), [&](const RealBox& better) {
      return iou_of(better, box) - distance_of(better, box) > threshold;
    });
    keep[rows[i]] = !goes;
    if (!goes) kept.push_back(box);
  }
}

template <class T>
void run(const Tensor& boxes, const int64_t* groups, const int32_t* order, double threshold, uint8_t* keep) {
  const int64_t n = boxes.size(0);
  const T* data = boxes.const_data_ptr<T>();
  if (!groups) return suppress_group(data, order, n, threshold, keep);
  std::vector<int32_t> rows(n);
  const std::vector<int64_t> starts = split_by_group(groups, order, n, rows.data());
  const int64_t count = int64_t(starts.size()) - 1;
  torch::stable::parallel_for(0, count, n < 1000 ? count : 1, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g)
      suppress_group(data, rows.data() + starts[g], starts[g + 1] - starts[g], threshold, keep);
  });
}

Tensor diou_nms(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& groups,
                double threshold) {
  check_boxes(boxes);
  check_scores(boxes, scores);
  check_groups(boxes, groups);
  const int64_t n = boxes.size(0);
  if (n == 0) return cpu_vector(0, aoti_torch_dtype_int64());
  const int64_t* labels = groups ? groups->const_data_ptr<int64_t>() : nullptr;
  std::vector<int32_t> order(n);
  std::vector<uint8_t> keep(n);
  if (scores.scalar_type() == ScalarType::Float)
    argsort_descending(scores.const_data_ptr<float>(), n, order.data());
  else
    argsort_descending(scores.const_data_ptr<double>(), n, order.data());
  if (boxes.scalar_type() == ScalarType::Float)
    run<float>(boxes, labels, order.data(), threshold, keep.data());
  else
    run<double>(boxes, labels, order.data(), threshold, keep.data());
  Tensor out = cpu_vector(std::accumulate(keep.begin(), keep.end(), int64_t(0)), aoti_torch_dtype_int64());
  int64_t* place = out.mutable_data_ptr<int64_t>();
  for (const int32_t row : order)
    if (keep[row]) *place++ = row;
  return out;
}

}  // namespace
}  // namespace detkit::cpu

STABLE_TORCH_LIBRARY_IMPL(detkit, CPU, m) { m.impl("diou_nms", TORCH_BOX(&detkit::cpu::diou_nms)); }
