// detkit::sigmoid_focal and its backward on CUDA; the kernels are in sigmoid_focal.cuh.
//
// Nothing is copied to the host, so a label that is no class can't raise an error: its row becomes NaN. The
// grid depends on the size alone and block sums are added up in order, so the result is the same every time.
#include <cuda_runtime.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "../checks.h"
#include "launch.h"
#include "sigmoid_focal.cuh"

namespace detkit::cuda {
namespace {

static_assert(kIgnoredLabel == kIgnored);

// Calls work(T()) with the type of the logits.
template <class Work>
void for_type(ScalarType type, const Work& work) {
  switch (type) {
    case ScalarType::Double:
      return work(double());
    case ScalarType::Half:
      return work(c10::Half(0, c10::Half::from_bits()));
    case ScalarType::BFloat16:
      return work(c10::BFloat16(0, c10::BFloat16::from_bits()));
    default:
      return work(float());
  }
}

Tensor sigmoid_focal(const Tensor& logits, const Tensor& labels, double positive, double negative,
                     double gamma) {
  check_focal(logits, labels);
  const bool wide = logits.scalar_type() == ScalarType::Double;
  Tensor out = torch::stable::new_zeros(logits, {}, wide ? ScalarType::Double : ScalarType::Float);
  const int64_t entries = logits.numel(), columns = logits.size(logits.dim() - 1);
  if (entries == 0) return out;
  const torch::stable::accelerator::DeviceGuard guard(logits.get_device_index());
  const Launch launch{stream_of(logits)};
  const Tensor scratch = torch::stable::new_empty(logits, {blocks_for(entries)}, ScalarType::Double);
  for_type(logits.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using A = typename Arithmetic<T>::type;
    focal_sum(static_cast<const T*>(logits.const_data_ptr()), labels.const_data_ptr<int64_t>(), entries,
              columns, Focal<A>{A(positive), A(negative), A(gamma)}, scratch.mutable_data_ptr<double>(),
              out.mutable_data_ptr<A>(), launch);
  });
  return out;
}

Tensor sigmoid_focal_backward(const Tensor& grad, const Tensor& logits, const Tensor& labels, double positive,
                              double negative, double gamma) {
  check_focal(logits, labels);
  DETKIT_CHECK(grad.numel() == 1 && is_real(grad), "grad must be a float32 or float64 scalar");
  DETKIT_CHECK(grad.device() == logits.device(), "grad and logits must be on one device");
  Tensor out = torch::stable::empty_like(logits);
  const int64_t entries = logits.numel(), columns = logits.size(logits.dim() - 1);
  if (entries == 0) return out;
  const torch::stable::accelerator::DeviceGuard guard(logits.get_device_index());
  const Launch launch{stream_of(logits)};
  for_type(logits.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using A = typename Arithmetic<T>::type;
    const auto backward = [&](const auto* scale) {
      focal_gradients(scale, static_cast<const T*>(logits.const_data_ptr()), labels.const_data_ptr<int64_t>(),
                      entries, columns, Focal<A>{A(positive), A(negative), A(gamma)},
                      static_cast<T*>(out.mutable_data_ptr()), launch);
    };
    if (grad.scalar_type() == ScalarType::Double)
      backward(grad.const_data_ptr<double>());
    else
      backward(grad.const_data_ptr<float>());
  });
  return out;
}

}  // namespace
}  // namespace detkit::cuda

STABLE_TORCH_LIBRARY_IMPL(detkit, CUDA, m) {
  m.impl("sigmoid_focal", TORCH_BOX(&detkit::cuda::sigmoid_focal));
  m.impl("sigmoid_focal_backward", TORCH_BOX(&detkit::cuda::sigmoid_focal_backward));
}
