// What every kernel asks of its tensors. The Python wrappers check first and in better words; these lines
// protect memory from callers that come through torch.ops.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <stdexcept>

// A RuntimeError in Python. STD_TORCH_CHECK builds its text by a stream, which crashes where the compiler
// links libstdc++ statically beside PyTorch's (a wrapper of g++ that does so was met).
#define DETKIT_CHECK(condition, text) \
  if (!(condition)) throw std::runtime_error(text)

namespace detkit {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Labels of the focal loss that are no class, as in detkit/structures.py.
inline constexpr int64_t kBackground = -1, kIgnored = -2;

inline bool is_real(const Tensor& t) {
  return t.scalar_type() == ScalarType::Float || t.scalar_type() == ScalarType::Double;
}

inline void check_boxes(const Tensor& boxes) {
  DETKIT_CHECK(boxes.dim() == 2 && boxes.size(1) == 4, "boxes must have the shape (N, 4)");
  DETKIT_CHECK(is_real(boxes), "boxes must be float32 or float64");
  DETKIT_CHECK(boxes.is_contiguous(), "boxes must be contiguous");
  // Rows are counted in int32, by the CUDA kernels up to a chunk past the end.
  DETKIT_CHECK(boxes.size(0) <= std::numeric_limits<int32_t>::max() - 4096, "more than 2^31 - 4097 boxes");
}

inline void check_scores(const Tensor& boxes, const Tensor& scores) {
  DETKIT_CHECK(scores.dim() == 1 && scores.size(0) == boxes.size(0), "scores must have the shape (N,)");
  DETKIT_CHECK(is_real(scores), "scores must be float32 or float64");
  DETKIT_CHECK(scores.is_contiguous(), "scores must be contiguous");
  DETKIT_CHECK(scores.device() == boxes.device(), "boxes and scores must be on one device");
}

inline void check_groups(const Tensor& boxes, const std::optional<Tensor>& groups) {
  if (!groups.has_value()) return;
  DETKIT_CHECK(groups->dim() == 1 && groups->size(0) == boxes.size(0), "groups must have the shape (N,)");
  DETKIT_CHECK(groups->scalar_type() == ScalarType::Long, "groups must be int64");
  DETKIT_CHECK(groups->is_contiguous(), "groups must be contiguous");
  DETKIT_CHECK(groups->device() == boxes.device(), "boxes and groups must be on one device");
}

inline void check_focal(const Tensor& logits, const Tensor& labels) {
  const ScalarType type = logits.scalar_type();
  DETKIT_CHECK(is_real(logits) || type == ScalarType::Half || type == ScalarType::BFloat16,
               "logits must be float16, bfloat16, float32 or float64");
  DETKIT_CHECK(labels.scalar_type() == ScalarType::Long, "labels must be int64");
  DETKIT_CHECK(logits.dim() == labels.dim() + 1, "labels must have one dimension less than logits");
  for (int64_t i = 0; i < labels.dim(); ++i)
    DETKIT_CHECK(logits.size(i) == labels.size(i), "labels must have the shape of logits but the last");
  DETKIT_CHECK(logits.is_contiguous() && labels.is_contiguous(), "logits and labels must be contiguous");
  DETKIT_CHECK(logits.device() == labels.device(), "logits and labels must be on one device");
}

// An uninitialised vector on the CPU. new_empty goes through the dispatcher, which takes longer than the
// suppression of a hundred boxes.
inline Tensor cpu_vector(int64_t size, int32_t dtype) {
  const int64_t stride = 1;
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(1, &size, &stride, dtype, aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

template <class T>
Tensor cpu_scalar(double value, int32_t dtype) {
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(0, nullptr, nullptr, dtype, aoti_torch_device_type_cpu(), 0, &handle));
  Tensor out(handle);
  *out.mutable_data_ptr<T>() = static_cast<T>(value);
  return out;
}

}  // namespace detkit
