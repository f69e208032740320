// A write past an allocation and a race in shared memory, for tools/sanitize.py --gpu: compute-sanitizer has
// to find them before its silence about the ops counts. Usage: planted memcheck | racecheck | none
#include <cstdio>
#include <cstring>

__global__ void fill(int* values, int n) {
  if (threadIdx.x < n) values[threadIdx.x] = static_cast<int>(threadIdx.x);
}

__global__ void race(int* result) {
  __shared__ int shared;
  shared = static_cast<int>(threadIdx.x);  // all 64 threads, two warps
  result[threadIdx.x] = shared;
}

int main(int argc, char** argv) {
  const char* bug = argc > 1 ? argv[1] : "none";
  int* values = nullptr;
  if (cudaMalloc(&values, 64 * sizeof(int)) != cudaSuccess) return 2;
  if (!std::strcmp(bug, "memcheck")) {
    fill<<<1, 96>>>(values, 96);
  } else if (!std::strcmp(bug, "racecheck")) {
    race<<<1, 64>>>(values);
  } else {
    fill<<<1, 64>>>(values, 64);
  }
  cudaDeviceSynchronize();
  std::printf("%s: %s\n", bug, cudaGetErrorString(cudaGetLastError()));
  return 0;
}
