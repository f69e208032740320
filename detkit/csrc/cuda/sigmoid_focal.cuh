// Kernels of the focal loss; the formulas are those of cpu/sigmoid_focal_kernel.h. Nothing of torch, as
// hard_nms.cuh.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace detkit::cuda {
namespace {

// Labels that are no class, as in detkit/structures.py and checks.h.
constexpr int64_t kIgnoredLabel = -2;

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
  if (label == kIgnoredLabel) return A(0);
  if (label < kIgnoredLabel || label >= columns) return A(NAN);
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

// Whether uint32 counts the entries; `i += step` must not overflow either.
bool small_enough(int64_t entries) {
  return entries + int64_t(kMaxBlocks) * kThreads <= std::numeric_limits<uint32_t>::max();
}

// Logits (entries / columns, columns), labels of the rows -> out (1), through partial (blocks_for(entries)).
template <class T, class Launch>
void focal_sum(const T* logits, const int64_t* labels, int64_t entries, int64_t columns,
               const Focal<typename Arithmetic<T>::type>& focal, double* partial,
               typename Arithmetic<T>::type* out, const Launch& launch) {
  const int blocks = blocks_for(entries);
  if (small_enough(entries))
    launch(partial_sums<T, uint32_t>, dim3(blocks), kThreads, logits, labels, uint32_t(entries),
           uint32_t(columns), focal, partial);
  else
    launch(partial_sums<T, int64_t>, dim3(blocks), kThreads, logits, labels, entries, columns, focal,
           partial);
  launch(add_up<typename Arithmetic<T>::type>, dim3(1), kThreads, partial, blocks, out);
}

// The same logits and labels, and the gradient of the sum -> out, the gradients of the logits.
template <class T, class G, class Launch>
void focal_gradients(const G* grad, const T* logits, const int64_t* labels, int64_t entries, int64_t columns,
                     const Focal<typename Arithmetic<T>::type>& focal, T* out, const Launch& launch) {
  const dim3 blocks(blocks_for(entries));
  if (small_enough(entries))
    launch(gradients<T, G, uint32_t>, blocks, kThreads, grad, logits, labels, uint32_t(entries),
           uint32_t(columns), focal, out);
  else
    launch(gradients<T, G, int64_t>, blocks, kThreads, grad, logits, labels, entries, columns, focal, out);
}

}  // namespace
}  // namespace detkit::cuda
