// detkit::sigmoid_focal and its backward on the CPU.
//
// The logits are taken in blocks of whole rows, whatever the number of threads, and each block's sum is kept
// apart until the end: the result doesn't depend on the threads. Within a block, a buffer that stays in the
// first cache is filled with logits in float32; entries that are no negatives (ignored rows, each row's own
// class) are switched off in it, and the few own classes go through the same kernel with the other sign.
#include "sigmoid_focal.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <type_traits>
#include <vector>

#include "../checks.h"
#include "capability.h"

namespace detkit::cpu {
namespace {

constexpr int64_t kBlock = 32768;  // entries a thread takes at a time

double focal_sum(const float* z, int n, float gamma) {
#ifdef DETKIT_HAS_X86
  if (float_lanes() == 16) return focal_sum_avx512(z, n, gamma);
  if (float_lanes() == 8) return focal_sum_avx2(z, n, gamma);
#endif
  return focal_sum_portable(z, n, gamma);
}

void focal_slope(const float* z, int n, float gamma, float scale, float* out) {
#ifdef DETKIT_HAS_X86
  if (float_lanes() == 16) return focal_slope_avx512(z, n, gamma, scale, out);
  if (float_lanes() == 8) return focal_slope_avx2(z, n, gamma, scale, out);
#endif
  focal_slope_portable(z, n, gamma, scale, out);
}

// float64, for checks of the gradient: no hurry.
double focal_sum(const double* z, int n, double gamma) {
  double total = 0;
  for (int i = 0; i < n; ++i) {
    const double l = std::log1p(std::exp(-std::abs(z[i])));
    const double softplus = (z[i] < 0 ? 0 : z[i]) + l, minus_log_p = (z[i] < 0 ? -z[i] : 0) + l;
    total += gamma == 0 ? softplus : std::exp(-gamma * minus_log_p) * softplus;
  }
  return total;
}

void focal_slope(const double* z, int n, double gamma, double scale, double* out) {
  for (int i = 0; i < n; ++i) {
    const double e = std::exp(-std::abs(z[i])), l = std::log1p(e);
    const double large = 1 / (1 + e), small = e / (1 + e);
    const double p = z[i] < 0 ? small : large, complement = z[i] < 0 ? large : small;
    const double softplus = (z[i] < 0 ? 0 : z[i]) + l, minus_log_p = (z[i] < 0 ? -z[i] : 0) + l;
    const double power = gamma == 0 ? 1 : std::exp(-gamma * minus_log_p);
    out[i] = scale * power * (gamma * complement * softplus + p);
  }
}

template <class T>
struct Arithmetic {
  using type = float;
};
template <>
struct Arithmetic<double> {
  using type = double;
};

struct Focal {
  double positive, negative, gamma;
};

// A part of the logits in the type of the arithmetic, with the positives taken out.
template <class T>
class Buffer {
 public:
  using A = typename Arithmetic<T>::type;

  // Entries begin .. begin + n of the logits (rows of `columns`), n <= kFocalBuffer.
  void load(const T* logits, const int64_t* labels, int64_t columns, int64_t begin, int n) {
    positives = padded_positives = 0;
    if constexpr (std::is_same_v<T, A>) {  // most parts hold negatives alone, and need no copy
      const int64_t last = (begin + n - 1) / columns;
      bool copy = n % kFocalLanes != 0;
      for (int64_t row = begin / columns; row <= last; ++row) copy |= labels[row] != kBackground;
      negatives = logits + begin;
      padded = n;
      if (!copy) return;
    }
    negatives = z;
    for (int i = 0; i < n; ++i) z[i] = static_cast<A>(logits[begin + i]);
    padded = pad(z, n);
    for (int64_t row = begin / columns; row * columns < begin + n; ++row) {
      if (labels[row] == kIgnored) {
        const int64_t from = std::max(row * columns - begin, int64_t(0));
        const int64_t to = std::min((row + 1) * columns - begin, int64_t(n));
        std::fill(z + from, z + to, A(kFocalOff));
      } else if (labels[row] >= 0) {
        const int64_t at = row * columns + labels[row] - begin;
        if (at < 0 || at >= n) continue;
        where[positives] = int(at);
        flipped[positives++] = -z[at];
        z[at] = A(kFocalOff);
      }
    }
    padded_positives = pad(flipped, positives);
  }

  const A* negatives;                   // all entries, those that are none switched off
  alignas(64) A flipped[kFocalBuffer];  // minus the logits of the positives
  int where[kFocalBuffer];              // and their places
  int padded, positives, padded_positives;

 private:
  alignas(64) A z[kFocalBuffer];

  static int pad(A* values, int n) {
    const int padded = (n + kFocalLanes - 1) / kFocalLanes * kFocalLanes;
    std::fill(values + n, values + padded, A(kFocalOff));
    return padded;
  }
};

// Calls work(buffer, first entry, number of entries, block) over all logits, blocks in parallel.
template <class T, class Work>
int64_t over_blocks(const Tensor& logits, const Tensor& labels, const Work& work) {
  const int64_t columns = logits.size(logits.dim() - 1), rows = labels.numel();
  if (rows == 0 || columns == 0) return 0;
  const T* data = logits.const_data_ptr<T>();
  const int64_t* classes = labels.const_data_ptr<int64_t>();
  const int64_t step = std::max<int64_t>(1, kBlock / columns), count = (rows + step - 1) / step;
  torch::stable::parallel_for(0, count, 1, [&](int64_t first, int64_t last) {
    Buffer<T> buffer;
    for (int64_t block = first; block < last; ++block) {
      const int64_t end = std::min((block + 1) * step, rows) * columns;
      for (int64_t begin = block * step * columns; begin < end; begin += kFocalBuffer) {
        const int n = int(std::min<int64_t>(kFocalBuffer, end - begin));
        buffer.load(data, classes, columns, begin, n);
        work(buffer, begin, n, block);
      }
    }
  });
  return count;
}

template <class T>
double total_of(const Tensor& logits, const Tensor& labels, const Focal& focal) {
  using A = typename Arithmetic<T>::type;
  const int64_t columns = logits.size(logits.dim() - 1);
  const int64_t step = std::max<int64_t>(1, kBlock / std::max<int64_t>(columns, 1));
  std::vector<double> sums(labels.numel() / step + 1, 0.0);
  over_blocks<T>(logits, labels, [&](const Buffer<T>& b, int64_t, int, int64_t block) {
    sums[block] += focal.negative * focal_sum(b.negatives, b.padded, A(focal.gamma));
    if (b.positives) sums[block] += focal.positive * focal_sum(b.flipped, b.padded_positives, A(focal.gamma));
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

template <class T>
void gradient_of(const Tensor& logits, const Tensor& labels, const Focal& focal, double grad, Tensor& out) {
  using A = typename Arithmetic<T>::type;
  T* place = out.mutable_data_ptr<T>();
  const A on_negative = A(grad * focal.negative), on_positive = A(-grad * focal.positive);
  over_blocks<T>(logits, labels, [&](const Buffer<T>& b, int64_t begin, int n, int64_t) {
    alignas(64) A found[kFocalBuffer],
        own[kFocalBuffer];  // apart from z: the loops over aliases would not be vectors
    if constexpr (std::is_same_v<T, A>) {
      if (b.negatives == logits.const_data_ptr<T>() + begin)
        return focal_slope(b.negatives, n, A(focal.gamma), on_negative, place + begin);
    }
    focal_slope(b.negatives, b.padded, A(focal.gamma), on_negative, found);
    focal_slope(b.flipped, b.padded_positives, A(focal.gamma), on_positive, own);
    for (int i = 0; i < b.positives; ++i) found[b.where[i]] = own[i];
    for (int i = 0; i < n; ++i) place[begin + i] = static_cast<T>(found[i]);
  });
}

// Asks for large pages under a large tensor that is about to be written for the first time: the page faults
// take several times as long as the arithmetic. Only a hint; where it fails nothing is lost.
void prefer_huge_pages(Tensor& out, size_t bytes) {
#ifdef __linux__
  constexpr size_t kHuge = size_t(1) << 21;
  const size_t begin = (reinterpret_cast<size_t>(out.mutable_data_ptr()) + kHuge - 1) / kHuge * kHuge;
  const size_t end = (reinterpret_cast<size_t>(out.mutable_data_ptr()) + bytes) / kHuge * kHuge;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

void check_labels(const Tensor& logits, const Tensor& labels) {
  const int64_t columns = logits.size(logits.dim() - 1);
  const int64_t* data = labels.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < labels.numel(); ++i)
    DETKIT_CHECK(data[i] >= kIgnored && data[i] < columns,
                 "labels: " + std::to_string(data[i]) + " is not a class 0 .. " +
                     std::to_string(columns - 1) + ", -1 (background) or -2 (ignored)");
}

Tensor sigmoid_focal(const Tensor& logits, const Tensor& labels, double positive, double negative,
                     double gamma) {
  check_focal(logits, labels);
  check_labels(logits, labels);
  const Focal focal{positive, negative, gamma};
  switch (logits.scalar_type()) {
    case ScalarType::Double:
      return cpu_scalar<double>(total_of<double>(logits, labels, focal), aoti_torch_dtype_float64());
    case ScalarType::Half:
      return cpu_scalar<float>(total_of<c10::Half>(logits, labels, focal), aoti_torch_dtype_float32());
    case ScalarType::BFloat16:
      return cpu_scalar<float>(total_of<c10::BFloat16>(logits, labels, focal), aoti_torch_dtype_float32());
    default:
      return cpu_scalar<float>(total_of<float>(logits, labels, focal), aoti_torch_dtype_float32());
  }
}

Tensor sigmoid_focal_backward(const Tensor& grad, const Tensor& logits, const Tensor& labels, double positive,
                              double negative, double gamma) {
  check_focal(logits, labels);
  check_labels(logits, labels);
  DETKIT_CHECK(grad.numel() == 1 && is_real(grad), "grad must be a float32 or float64 scalar");
  const double scale = grad.scalar_type() == ScalarType::Double ? *grad.const_data_ptr<double>()
                                                                : *grad.const_data_ptr<float>();
  const Focal focal{positive, negative, gamma};
  Tensor out = torch::stable::empty_like(logits);
  prefer_huge_pages(out, size_t(logits.numel()) * logits.element_size());
  switch (logits.scalar_type()) {
    case ScalarType::Double:
      gradient_of<double>(logits, labels, focal, scale, out);
      break;
    case ScalarType::Half:
      gradient_of<c10::Half>(logits, labels, focal, scale, out);
      break;
    case ScalarType::BFloat16:
      gradient_of<c10::BFloat16>(logits, labels, focal, scale, out);
      break;
    default:
      gradient_of<float>(logits, labels, focal, scale, out);
  }
  return out;
}

}  // namespace
}  // namespace detkit::cpu

STABLE_TORCH_LIBRARY_IMPL(detkit, CPU, m) {
  m.impl("sigmoid_focal", TORCH_BOX(&detkit::cpu::sigmoid_focal));
  m.impl("sigmoid_focal_backward", TORCH_BOX(&detkit::cpu::sigmoid_focal_backward));
}
