// A write past an allocation, a race in shared memory, a read of memory that nothing wrote, and a barrier that
// not every thread of a warp reaches, for tools/sanitize.py --gpu: compute-sanitizer has to find them before its
// silence about the ops counts. Usage: planted memcheck | racecheck | initcheck | synccheck | none
#include <cstdio>
#include <cstring>

__global__ void fill(int* values, int n) {
  if (threadIdx.x < n) values[threadIdx.x] = static_cast<int>(threadIdx.x);
}

__global__ void race(int* result) {
  __shared__ int shared[64];
  shared[threadIdx.x] = static_cast<int>(threadIdx.x);
  result[threadIdx.x] = shared[63 - threadIdx.x];  // written by the other warp; no barrier between
}

__global__ void add_one(int* values) { values[threadIdx.x] += 1; }

__global__ void diverge(int* values) {
  if (threadIdx.x % 2 == 0) __syncthreads();
  values[threadIdx.x] = 0;
}

int main(int argc, char** argv) {
  const char* bug = argc > 1 ? argv[1] : "none";
  int* values = nullptr;
  if (cudaMalloc(&values, 64 * sizeof(int)) != cudaSuccess) return 2;
  if (!std::strcmp(bug, "memcheck")) {
    fill<<<1, 96>>>(values, 96);
  } else if (!std::strcmp(bug, "racecheck")) {
    race<<<1, 64>>>(values);
  } else if (!std::strcmp(bug, "initcheck")) {
    add_one<<<1, 64>>>(values);
  } else if (!std::strcmp(bug, "synccheck")) {
    diverge<<<1, 64>>>(values);
  } else {
    fill<<<1, 64>>>(values, 64);
  }
  cudaDeviceSynchronize();
  std::printf("%s: %s\n", bug, cudaGetErrorString(cudaGetLastError()));
  return 0;
}
