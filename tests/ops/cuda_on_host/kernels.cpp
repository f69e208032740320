// Runs the kernels of detkit/csrc/cuda on one case, in every order of threads and blocks. What a GPU would
// get comes through standard input as raw bytes, what it would give goes to standard output.
//
//   kernels nms float|double N THRESHOLD GROUPED     boxes, groups if GROUPED is 1 -> N bytes
//   kernels focal float|double|half|bfloat16 ROWS COLUMNS POSITIVE NEGATIVE GAMMA GRAD
//                                                    logits, labels -> the sum, gradients
//
// Exit code 3: barriers that don't fit; 5: results that depend on the order.
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "cuda_on_host.h"
// In its place, so that changed copies can be tried.
#include "hard_nms.cuh"
#include "sigmoid_focal.cuh"

using namespace detkit::cuda;

namespace {

// A heap block of exactly this size, so that AddressSanitizer sees its end.
template <class T>
std::unique_ptr<T[]> take(size_t count) {
  std::unique_ptr<T[]> data(new T[count]);
  if (std::fread(static_cast<void*>(data.get()), sizeof(T), count, stdin) != count) std::exit(4);
  return data;
}

std::vector<char> result;

template <class T>
void give(const T* data, size_t count) {
  const char* bytes = reinterpret_cast<const char*>(data);
  result.insert(result.end(), bytes, bytes + count * sizeof(T));
}

// Runs `work` once in each order; the results must be equal to the bit.
template <class Work>
void in_every_order(const Work& work) {
  using cuda_on_host::Order;
  std::vector<char> first;
#if defined(__SANITIZE_ADDRESS__)
  const auto orders = {Order::shuffled};  // borders of memory are the same in any order
#else
  const auto orders = {Order::ascending, Order::descending, Order::shuffled};
#endif
  for (Order order : orders) {
    cuda_on_host::order = order;
    result.clear();
    work();
    if (first.empty()) first = result;
    if (result != first) {
      std::fprintf(stderr, "cuda_on_host: the result depends on the order of the threads\n");
      std::exit(5);
    }
  }
  std::fwrite(result.data(), 1, result.size(), stdout);
}

template <class T>
void run_nms(int n, double threshold, bool grouped) {
  const auto boxes = take<Box<T>>(n);
  const auto groups = grouped ? take<int64_t>(n) : nullptr;
  const size_t size = Scratch::size(n, grouped);
  const std::unique_ptr<uint8_t[]> keep(new uint8_t[n]);
  const std::unique_ptr<int64_t[]> scratch(new int64_t[size]);
  in_every_order([&] {
    std::fill_n(keep.get(), n, uint8_t(1));
    std::memset(scratch.get(), 0xA5, size * sizeof(int64_t));  // torch gives it as it is
    suppress(boxes.get(), groups.get(), n, threshold, keep.get(), Scratch(scratch.get(), grouped),
             cuda_on_host::Launch());
    give(keep.get(), n);
  });
}

template <class T>
void run_focal(int64_t rows, int64_t columns, double positive, double negative, double gamma, double grad) {
  using A = typename Arithmetic<T>::type;
  const int64_t entries = rows * columns;
  const auto logits = take<T>(entries);
  const auto labels = take<int64_t>(rows);
  const Focal<A> focal{A(positive), A(negative), A(gamma)};
  const std::unique_ptr<double[]> partial(new double[blocks_for(entries)]);
  const std::unique_ptr<T[]> gradients(new T[entries]);
  const A scale = A(grad);
  in_every_order([&] {
    A sum = NAN;
    std::fill_n(partial.get(), blocks_for(entries), NAN);
    std::memset(static_cast<void*>(gradients.get()), 0xFF, entries * sizeof(T));
    focal_sum(logits.get(), labels.get(), entries, columns, focal, partial.get(), &sum,
              cuda_on_host::Launch());
    focal_gradients(&scale, logits.get(), labels.get(), entries, columns, focal, gradients.get(),
                    cuda_on_host::Launch());
    give(&sum, 1);
    give(gradients.get(), entries);
  });
}

}  // namespace

int main(int count, char** words) {
  const std::vector<std::string> args(words + 1, words + count);
  const auto number = [&](size_t i) { return std::stod(args.at(i)); };
  const std::string& type = args.at(1);
  if (args.at(0) == "nms") {
    const auto run = type == "double" ? run_nms<double> : run_nms<float>;
    run(int(number(2)), number(3), args.at(4) == "1");
    return 0;
  }
  const auto run = type == "double"     ? run_focal<double>
                   : type == "half"     ? run_focal<c10::Half>
                   : type == "bfloat16" ? run_focal<c10::BFloat16>
                                        : run_focal<float>;
  run(int64_t(number(2)), int64_t(number(3)), number(4), number(5), number(6), number(7));
}
