// CUDA kernels as plain C++: one fiber per thread of a block, blocks one after another.
//
// A fiber runs until __syncthreads or its end; then the next one does, in an order that is drawn for each
// phase. What a kernel computes must not depend on it. Reported (the process ends with code 3): threads that
// wait at different barriers, or that leave while others wait. Shared memory holds rubbish when a block
// begins. Not seen: races between two barriers whose outcome no order of whole phases changes, as of a lost
// atomic.
#pragma once

#include <link.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define __shared__ static  // where AddressSanitizer watches the borders
#else
#define __shared__ \
  static thread_local  // where poison_shared finds it: the program has no other such variable
#endif
#define __global__
#define __device__
#define __syncthreads() cuda_on_host::wait(__LINE__)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3() = default;
  dim3(unsigned x, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

template <class T>
T atomicOr(T* place, T value) {
  const T old = *place;
  *place |= value;
  return old;
}

namespace cuda_on_host {

enum class Order { ascending, descending, shuffled };

constexpr size_t kStack = 1 << 17;

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  int line = 0;  // of the barrier at which it waits
  bool done = false;
  void* fake = nullptr;  // AddressSanitizer's part of the stack
};

inline std::vector<Fiber> fibers;
inline Fiber scheduler;
inline Fiber* running = nullptr;
inline std::function<void()> body;
inline Order order = Order::ascending;
inline std::mt19937 random;

[[noreturn]] inline void report(const char* what, int line, int other) {
  std::fprintf(stderr, "cuda_on_host: %s (lines %d and %d), block (%u, %u)\n", what, line, other, blockIdx.x,
               blockIdx.y);
  std::exit(3);
}

inline void change(Fiber& from, Fiber& to, [[maybe_unused]] const void* bottom, [[maybe_unused]] bool ends) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(ends ? nullptr : &from.fake, bottom, kStack);
#endif
  swapcontext(&from.context, &to.context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.fake, nullptr, nullptr);
#endif
}

inline const void* own_stack = nullptr;  // the scheduler's, for AddressSanitizer

inline void wait(int line) {
  running->line = line;
  change(*running, scheduler, own_stack, false);
}

inline void enter() {
#if defined(__SANITIZE_ADDRESS__)
  size_t size = 0;
  __sanitizer_finish_switch_fiber(nullptr, &own_stack, &size);
#endif
  body();
  running->done = true;
  change(*running, scheduler, own_stack, true);
}

inline void poison_shared() {
  dl_iterate_phdr(
      [](dl_phdr_info* program, size_t, void*) {
        for (int i = 0; i < program->dlpi_phnum; ++i)
          if (program->dlpi_phdr[i].p_type == PT_TLS && program->dlpi_tls_data)
            std::memset(program->dlpi_tls_data, 0xA5, program->dlpi_phdr[i].p_memsz);
        return 1;  // the first one is the program itself
      },
      nullptr);
}

// Lets every thread of the block that has not ended run to its next barrier. Returns whether any is left.
inline bool phase(const std::vector<unsigned>& visits) {
  int waiting = 0, left = 0;
  for (unsigned thread : visits) {
    Fiber& fiber = fibers[thread];
    if (fiber.done) continue;
    threadIdx = dim3(thread, 0, 0);
    running = &fiber;
    change(scheduler, fiber, fiber.stack.get(), false);
    fiber.done ? ++left : ++waiting;
    if (!fiber.done && waiting > 1 && fiber.line != scheduler.line)
      report("threads wait at different barriers", scheduler.line, fiber.line);
    if (!fiber.done) scheduler.line = fiber.line;
  }
  if (waiting && waiting != int(visits.size()))
    report("threads have left before a barrier", scheduler.line, 0);
  return waiting > 0;
}

inline void run_block(unsigned threads) {
  if (fibers.size() < threads) fibers = std::vector<Fiber>(threads);
  std::vector<unsigned> visits(threads);
  std::iota(visits.begin(), visits.end(), 0u);
  if (order == Order::descending) std::reverse(visits.begin(), visits.end());
  for (unsigned i = 0; i < threads; ++i) {
    fibers[i].done = false;
    getcontext(&fibers[i].context);
    fibers[i].context.uc_stack.ss_sp = fibers[i].stack.get();
    fibers[i].context.uc_stack.ss_size = kStack;
    makecontext(&fibers[i].context, enter, 0);
  }
#if !defined(__SANITIZE_ADDRESS__)
  poison_shared();
#endif
  do {
    if (order == Order::shuffled) std::shuffle(visits.begin(), visits.end(), random);
  } while (phase(visits));
}

// Kernels run when they are launched. Blocks come in the order of the threads.
struct Launch {
  template <class... Parameters, class... Arguments>
  void operator()(void (*kernel)(Parameters...), dim3 grid, int threads, Arguments... arguments) const {
    gridDim = grid;
    blockDim = dim3(threads);
    body = [=] { kernel(arguments...); };
    std::vector<unsigned> blocks(grid.x * grid.y);
    std::iota(blocks.begin(), blocks.end(), 0u);
    if (order == Order::descending) std::reverse(blocks.begin(), blocks.end());
    if (order == Order::shuffled) std::shuffle(blocks.begin(), blocks.end(), random);
    for (unsigned block : blocks) {
      blockIdx = dim3(block % grid.x, block / grid.x, 0);
      run_block(unsigned(threads));
    }
  }
};

}  // namespace cuda_on_host
