// detkit::nms_mask on CUDA. Sorting around it is PyTorch's (detkit/ops/suppression/hard.py); the kernels are
// in hard_nms.cuh.
#include <cuda_runtime.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <optional>

#include "../checks.h"
#include "hard_nms.cuh"
#include "launch.h"

namespace detkit::cuda {
namespace {

template <class T>
void run(const Tensor& boxes, const std::optional<Tensor>& groups, double threshold, const Tensor& mask,
         cudaStream_t stream) {
  const int n = int(boxes.size(0));
  uint8_t* keep = static_cast<uint8_t*>(mask.mutable_data_ptr());
  STD_CUDA_CHECK(cudaMemsetAsync(keep, 1, size_t(n), stream));
  const bool grouped = groups.has_value();
  const Tensor scratch = torch::stable::new_empty(boxes, {Scratch::size(n, grouped)}, ScalarType::Long);
  suppress(reinterpret_cast<const Box<T>*>(boxes.const_data_ptr<T>()),
           grouped ? groups->const_data_ptr<int64_t>() : nullptr, n, threshold, keep,
           Scratch(scratch.mutable_data_ptr<int64_t>(), grouped), Launch{stream});
}

Tensor nms_mask(const Tensor& boxes, const std::optional<Tensor>& groups, double threshold) {
  check_boxes(boxes);
  check_groups(boxes, groups);
  Tensor mask = torch::stable::new_empty(boxes, {boxes.size(0)}, ScalarType::Bool);
  if (boxes.size(0) == 0) return mask;
  const torch::stable::accelerator::DeviceGuard guard(boxes.get_device_index());
  const cudaStream_t stream = stream_of(boxes);
  if (boxes.scalar_type() == ScalarType::Float)
    run<float>(boxes, groups, threshold, mask, stream);
  else
    run<double>(boxes, groups, threshold, mask, stream);
  return mask;
}

}  // namespace
}  // namespace detkit::cuda

STABLE_TORCH_LIBRARY_IMPL(detkit, CUDA, m) { m.impl("nms_mask", TORCH_BOX(&detkit::cuda::nms_mask)); }
