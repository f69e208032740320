// detkit::nms and detkit::nms_mask on the CPU.
#include "hard_nms.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "../checks.h"
#include "capability.h"
#include "sort.h"

// Under half a millisecond: a busy machine starts threads slower. tools/sanitize.py sets it to have threads.
#ifndef DETKIT_SERIAL_BELOW
#define DETKIT_SERIAL_BELOW 20000
#endif

namespace detkit::cpu {
namespace {

void suppress(const float* boxes, const int32_t* rows, int64_t m, double threshold, uint8_t* keep) {
#ifdef DETKIT_HAS_X86
  if (float_lanes() == 16) return suppress_avx512(boxes, rows, m, threshold, keep);
  if (float_lanes() == 8) return suppress_avx2(boxes, rows, m, threshold, keep);
#endif
  suppress_portable(boxes, rows, m, threshold, keep);
}

void suppress(const double* boxes, const int32_t* rows, int64_t m, double threshold, uint8_t* keep) {
  suppress_double(boxes, rows, m, threshold, keep);
}

constexpr int64_t kGatherFrom = 20000;  // boxes: from here on they don't fit the nearest caches

// The same with the group's boxes brought together first: the scan would wait for each where it lies, while a
// copy has many on their way at once.
template <class T>
void suppress_gathered(const T* boxes, const int32_t* rows, int64_t m, double threshold, uint8_t* keep) {
  std::vector<T> together(size_t(4 * m));
  std::vector<uint8_t> stays(size_t(m), 0);
  for (int64_t i = 0; i < m; ++i) std::copy_n(boxes + 4 * int64_t(rows[i]), 4, together.data() + 4 * i);
  suppress(together.data(), nullptr, m, threshold, stays.data());
  for (int64_t i = 0; i < m; ++i) keep[rows[i]] = stays[size_t(i)];
}

// order: rows by descending score; keep: a flag for each row. Threads take whole groups.
template <class T>
void suppress_groups(const T* boxes, const int64_t* groups, const int32_t* order, int64_t n, double threshold,
                     uint8_t* keep) {
  std::unique_ptr<int32_t[]> rows(new int32_t[n]);
  const std::vector<int64_t> starts = split_by_group(groups, order, n, rows.get());
  const auto work = [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      const int32_t* members = rows.get() + starts[g];
      const int64_t m = starts[g + 1] - starts[g];
      if (n < kGatherFrom)
        suppress(boxes, members, m, threshold, keep);
      else
        suppress_gathered(boxes, members, m, threshold, keep);
    }
  };
  const int64_t count = int64_t(starts.size()) - 1;
  if (n < DETKIT_SERIAL_BELOW) return work(0, count);
  torch::stable::parallel_for(0, count, std::max<int64_t>(1, count * 4096 / n), work);
}

template <class T>
void mask_of(const Tensor& boxes, const int64_t* groups, const int32_t* order, double threshold,
             uint8_t* keep) {
  const int64_t n = boxes.size(0);
  const T* data = boxes.const_data_ptr<T>();
  if (groups)
    suppress_groups(data, groups, order, n, threshold, keep);
  else
    suppress(data, order, n, threshold, keep);
}

Tensor nms_mask(const Tensor& boxes, const std::optional<Tensor>& groups, double threshold) {
  check_boxes(boxes);
  check_groups(boxes, groups);
  const int64_t n = boxes.size(0);
  Tensor mask = cpu_vector(n, aoti_torch_dtype_bool());
  if (n == 0) return mask;
  uint8_t* keep = static_cast<uint8_t*>(mask.mutable_data_ptr());
  const int64_t* labels = groups ? groups->const_data_ptr<int64_t>() : nullptr;
  std::unique_ptr<int32_t[]> order;
  if (labels) {
    order.reset(new int32_t[n]);
    std::iota(order.get(), order.get() + n, 0);
  }
  if (boxes.scalar_type() == ScalarType::Float)
    mask_of<float>(boxes, labels, order.get(), threshold, keep);
  else
    mask_of<double>(boxes, labels, order.get(), threshold, keep);
  return mask;
}

Tensor nms(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& groups, double threshold) {
  check_boxes(boxes);
  check_scores(boxes, scores);
  check_groups(boxes, groups);
  const int64_t n = boxes.size(0);
  if (n == 0) return cpu_vector(0, aoti_torch_dtype_int64());
  const int64_t* labels = groups ? groups->const_data_ptr<int64_t>() : nullptr;
  std::unique_ptr<int32_t[]> order(new int32_t[n]);
  std::unique_ptr<uint8_t[]> keep(new uint8_t[n]);
  if (scores.scalar_type() == ScalarType::Float)
    argsort_descending(scores.const_data_ptr<float>(), n, order.get());
  else
    argsort_descending(scores.const_data_ptr<double>(), n, order.get());
  if (boxes.scalar_type() == ScalarType::Float)
    mask_of<float>(boxes, labels, order.get(), threshold, keep.get());
  else
    mask_of<double>(boxes, labels, order.get(), threshold, keep.get());

  const int64_t kept = std::accumulate(keep.get(), keep.get() + n, int64_t(0));
  Tensor out = cpu_vector(kept, aoti_torch_dtype_int64());
  int64_t* place = out.mutable_data_ptr<int64_t>();
  for (int64_t p = 0; p < n; ++p)
    if (keep[order[p]]) *place++ = order[p];
  return out;
}

int64_t cpu_lanes() { return float_lanes(); }

}  // namespace
}  // namespace detkit::cpu

STABLE_TORCH_LIBRARY_IMPL(detkit, CPU, m) {
  m.impl("nms", TORCH_BOX(&detkit::cpu::nms));
  m.impl("nms_mask", TORCH_BOX(&detkit::cpu::nms_mask));
}

STABLE_TORCH_LIBRARY_IMPL(detkit, CompositeExplicitAutograd, m) {
  m.impl("cpu_lanes", TORCH_BOX(&detkit::cpu::cpu_lanes));
}
