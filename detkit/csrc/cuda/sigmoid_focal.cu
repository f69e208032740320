// detkit::sigmoid_focal and its backward on CUDA; the formulas are those of cpu/sigmoid_focal_kernel.h.
//
// Nothing is copied to the host, so a label that is no class can't raise an error: its row becomes NaN. The
// grid depends on the size alone and block sums are added up in order, so the result is the same every time.
#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "../checks.h"

namespace detkit::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxBlocks = 2048;

template <class T>
struct Arithmetic {
  using type = float;
};
template <>
struct Arithmetic<double> {
  using type = double;
};

template <class A>
struct Focal {
  A positive, negative, gamma;
};

template <class A>
__device__ A power_of(A p, A minus_log_p, A gamma) {
  if (gamma == A(0)) return A(1);
  if (gamma == A(1)) return p;
  if (gamma == A(2)) return p * p;
  return exp(-gamma * minus_log_p);
}

// Value of one entry, or `slope`: its derivative by the logit.
template <class A, bool slope>
__device__ A focal_of(A x, int64_t label, int64_t column, int64_t columns, const Focal<A>& focal) {
  if (label == kIgnored) return A(0);
  if (label < kIgnored || label >= columns) return A(NAN);
  const bool own = label == column;
  const A z = own ? -x : x, weight = own ? focal.positive : focal.negative;
  const A e = exp(z < A(0) ? z : -z), l = log1p(e);
  const A large = A(1) / (A(1) + e), small = e * large;
  const A softplus = (z < A(0) ? A(0) : z) + l, minus_log_p = (z < A(0) ? -z : A(0)) + l;
  const A p = z < A(0) ? small : large, complement = z < A(0) ? large : small;
  const A power = power_of(p, minus_log_p, focal.gamma);
  if (!slope) return weight * power * softplus;
  return (own ? -weight : weight) * power * (focal.gamma * complement * softplus + p);
}

// Sum over the block; valid in thread 0. The order of additions is fixed.
__device__ double block_sum(double value) {
  __shared__ double sums[kThreads];
  sums[threadIdx.x] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  return sums[0];
}

template <class T, class Index>
__global__ void partial_sums(const T* logits, const int64_t* labels, Index entries, Index columns,
                             Focal<typename Arithmetic<T>::type> focal, double* partial) {
  using A = typename Arithmetic<T>::type;
  double total = 0;
  const Index step = Index(gridDim.x) * kThreads;
  for (Index i = Index(blockIdx.x) * kThreads + threadIdx.x; i < entries; i += step) {
    const Index row = i / columns;
    total += focal_of<A, false>(static_cast<A>(logits[i]), labels[row], i - row * columns, columns, focal);
  }
  total = block_sum(total);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

template <class A>
__global__ void add_up(const double* partial, int count, A* out) {
  double total = 0;
  for (int i = threadIdx.x; i < count; i += kThreads) total += partial[i];
  total = block_sum(total);
  if (threadIdx.x == 0) *out = static_cast<A>(total);
}

template <class T, class G, class Index>
__global__ void gradients(const G* grad, const T* logits, const int64_t* labels, Index entries, Index columns,
                          Focal<typename Arithmetic<T>::type> focal, T* out) {
  using A = typename Arithmetic<T>::type;
  const A scale = static_cast<A>(*grad);
  const Index step = Index(gridDim.x) * kThreads;
  for (Index i = Index(blockIdx.x) * kThreads + threadIdx.x; i < entries; i += step) {
    const Index row = i / columns;
    const A slope =
        focal_of<A, true>(static_cast<A>(logits[i]), labels[row], i - row * columns, columns, focal);
    out[i] = static_cast<T>(scale * slope);
  }
}

int blocks_for(int64_t entries) {
  return int(std::min<int64_t>(kMaxBlocks, (entries + kThreads - 1) / kThreads));
}

// The stream of the tensor's device; `i += step` must not overflow either.
bool small_enough(int64_t entries) {
  return entries + int64_t(kMaxBlocks) * kThreads <= std::numeric_limits<uint32_t>::max();
}

cudaStream_t stream_of(const Tensor& t) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

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
  const cudaStream_t stream = stream_of(logits);
  const int blocks = blocks_for(entries);
  const Tensor scratch = torch::stable::new_empty(logits, {blocks}, ScalarType::Double);
  double* partial = scratch.mutable_data_ptr<double>();
  for_type(logits.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using A = typename Arithmetic<T>::type;
    const Focal<A> focal{A(positive), A(negative), A(gamma)};
    const T* data = static_cast<const T*>(logits.const_data_ptr());
    const int64_t* classes = labels.const_data_ptr<int64_t>();
    if (small_enough(entries))
      partial_sums<T, uint32_t><<<blocks, kThreads, 0, stream>>>(data, classes, uint32_t(entries),
                                                                 uint32_t(columns), focal, partial);
    else
      partial_sums<T, int64_t>
          <<<blocks, kThreads, 0, stream>>>(data, classes, entries, columns, focal, partial);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    add_up<A><<<1, kThreads, 0, stream>>>(partial, blocks, out.mutable_data_ptr<A>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
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
  const cudaStream_t stream = stream_of(logits);
  const int blocks = blocks_for(entries);
  for_type(logits.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using A = typename Arithmetic<T>::type;
    const Focal<A> focal{A(positive), A(negative), A(gamma)};
    const T* data = static_cast<const T*>(logits.const_data_ptr());
    const int64_t* classes = labels.const_data_ptr<int64_t>();
    T* place = static_cast<T*>(out.mutable_data_ptr());
    const auto launch = [&](const auto* scale) {
      using G = std::remove_const_t<std::remove_pointer_t<decltype(scale)>>;
      if (small_enough(entries))
        gradients<T, G, uint32_t><<<blocks, kThreads, 0, stream>>>(scale, data, classes, uint32_t(entries),
                                                                   uint32_t(columns), focal, place);
      else
        gradients<T, G, int64_t>
            <<<blocks, kThreads, 0, stream>>>(scale, data, classes, entries, columns, focal, place);
    };
    if (grad.scalar_type() == ScalarType::Double)
      launch(grad.const_data_ptr<double>());
    else
      launch(grad.const_data_ptr<float>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

}  // namespace
}  // namespace detkit::cuda

STABLE_TORCH_LIBRARY_IMPL(detkit, CUDA, m) {
  m.impl("sigmoid_focal", TORCH_BOX(&detkit::cuda::sigmoid_focal));
  m.impl("sigmoid_focal_backward", TORCH_BOX(&detkit::cuda::sigmoid_focal_backward));
}
