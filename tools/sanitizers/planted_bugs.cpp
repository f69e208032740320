// Bugs on purpose, one for each kind that the sanitizers are asked to find, and one op without any. Only
// tools/sanitize.py compiles this file; a run in which these stay unseen would prove nothing.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <limits>
#include <vector>

namespace {

using torch::stable::Tensor;

// Reads the float behind the tensor's last one: memory of PyTorch's own allocator.
double past_the_tensor(const Tensor& x) {
  const float* values = x.const_data_ptr<float>();
  const volatile float* behind = values + x.numel();
  return *behind;
}

double past_the_vector(int64_t size) {
  std::vector<float> values(size, 1.0f);
  volatile float* data = values.data();
  data[size] = 2.0f;
  return data[0];
}

int64_t signed_overflow(int64_t x) { return std::numeric_limits<int64_t>::max() + x; }

int64_t cast_of_nan(double x) { return static_cast<int32_t>(x * std::numeric_limits<double>::quiet_NaN()); }

// Every thread adds to the same number.
int64_t race(int64_t n) {
  int64_t sum = 0;
  torch::stable::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) sum += i;
  });
  return sum;
}

// Threads that write what they alone own, between reads and writes of the caller: nothing to report.
int64_t no_bug(int64_t n) {
  std::vector<int64_t> values(n, 1);
  for (int round = 0; round < 3; ++round) {
    torch::stable::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) values[i] += i;
    });
    for (int64_t& value : values) value -= 1;
  }
  int64_t sum = 0;
  for (const int64_t value : values) sum += value;
  return sum;
}

}  // namespace

STABLE_TORCH_LIBRARY(detkit_planted, m) {
  m.def("past_the_tensor(Tensor x) -> float");
  m.def("past_the_vector(int size) -> float");
  m.def("signed_overflow(int x) -> int");
  m.def("cast_of_nan(float x) -> int");
  m.def("race(int n) -> int");
  m.def("no_bug(int n) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(detkit_planted, CompositeExplicitAutograd, m) {
  m.impl("past_the_tensor", TORCH_BOX(&past_the_tensor));
  m.impl("past_the_vector", TORCH_BOX(&past_the_vector));
  m.impl("signed_overflow", TORCH_BOX(&signed_overflow));
  m.impl("cast_of_nan", TORCH_BOX(&cast_of_nan));
  m.impl("race", TORCH_BOX(&race));
  m.impl("no_bug", TORCH_BOX(&no_bug));
}
