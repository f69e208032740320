// parallel_for on plain threads, for ThreadSanitizer only. PyTorch runs it on libgomp, whose futex waits
// ThreadSanitizer does not see: it would call every hand-over between caller and workers a race, and a list
// of suppressions long enough to hide that would hide ours too. The compiler is told to put these names in
// the place of PyTorch's (tools/sanitize.py), so the kernels stay as they are. The grain is left out of
// account: it is there for speed, and small cases shall have threads too.
#include <torch/csrc/stable/c/shim.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {
thread_local uint32_t thread_index = 0;
thread_local bool inside = false;
std::atomic<int64_t> regions{0};

// Leaves the number of parallel regions of this process behind: without any, silence means nothing.
struct Count {
  ~Count() {
    const char* path = std::getenv("DETKIT_SANITIZE_REGIONS");
    std::FILE* file = path ? std::fopen(path, "a") : nullptr;
    if (file == nullptr) return;
    std::fprintf(file, "%lld\n", static_cast<long long>(regions.load()));
    std::fclose(file);
  }
} count_at_exit;
}  // namespace

extern "C" AOTITorchError torch_get_thread_idx(uint32_t* found) {
  *found = thread_index;
  return AOTI_TORCH_SUCCESS;
}

// As PyTorch: at most one range a thread, no threads inside threads.
extern "C" AOTITorchError torch_parallel_for(int64_t begin, int64_t end, int64_t, ParallelFunc work,
                                             void* context) {
  if (begin >= end) return AOTI_TORCH_SUCCESS;
  uint32_t threads = 1;
  torch_get_num_threads(&threads);
  const int64_t wanted = inside ? 1 : std::min<int64_t>(threads, end - begin);
  const int64_t count = std::max<int64_t>(wanted, 1);
  if (count > 1) ++regions;
  const int64_t step = (end - begin + count - 1) / count;
  std::atomic<bool> failed{false};
  auto run = [&](uint32_t index) {
    const int64_t from = begin + index * step;
    if (from >= end) return;
    thread_index = index;
    const bool before = inside;
    inside = count > 1 || before;
    try {
      work(from, std::min(end, from + step), context);
    } catch (...) {
      failed = true;
    }
    inside = before;
  };
  std::vector<std::thread> workers;
  for (uint32_t i = 1; i < count; ++i) workers.emplace_back(run, i);
  run(0);
  for (std::thread& worker : workers) worker.join();
  return failed ? AOTI_TORCH_FAILURE : AOTI_TORCH_SUCCESS;
}
