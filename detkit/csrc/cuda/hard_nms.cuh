// Kernels of greedy suppression, and the order in which they are launched. Nothing of torch:
// tests/ops/cuda_on_host compiles this file with a plain C++ compiler. Includes of the file that includes
// this one: CUDA's or the emulator's.
//
// Boxes are taken in chunks of 2048, best first. For each chunk, three launches:
//   overlap_bits  which boxes of the chunk overlap which, one bit a pair, in tiles of 64 x 64
//   scan          one block walks the chunk's tiles and settles who stays
//   sweep         the boxes that stay suppress everything behind the chunk
// So memory is linear in the number of boxes (a full mask of 100k boxes takes 1.25 GB), boxes behind are
// compared with kept ones only, and nothing is copied to the host: the number of launches depends on N alone.
// Boxes of one group should be contiguous: tiles that share no group are then skipped whole. The result does
// not depend on it. The arithmetic is that of the CPU kernel; it is compiled without fused products.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace detkit::cuda {
namespace {

constexpr int kTile = 64;
constexpr int kChunk = 2048;
constexpr int kWords = kChunk / kTile;
constexpr int kScanThreads = 1024;
constexpr int kBatch = 256;  // kept boxes a sweep block compares with

using Word = unsigned long long;

template <class T>
struct Threshold {
  T exact;  // the largest T that is <= the threshold
  T k;      // inter < k (area + area) rules out IoU > threshold; 0 leaves this filter open
};

template <class T>
Threshold<T> make_threshold(double value) {
  T exact = static_cast<T>(value);
  if (static_cast<double>(exact) > value) exact = std::nextafter(exact, -std::numeric_limits<T>::infinity());
  const double t = exact;
  return {exact, t >= 1e-6 && t < 1 ? static_cast<T>(t / (1 + t) * (1 - 1e-5)) : T(0)};
}

template <class T>
struct Box {
  T x1, y1, x2, y2;
};

template <class T>
__device__ bool overlap(const Box<T>& a, const Box<T>& b, const Threshold<T>& t) {
  // A NaN makes an area NaN, hence the quotient, whatever min and max make of it.
  T w = (a.x2 < b.x2 ? a.x2 : b.x2) - (a.x1 > b.x1 ? a.x1 : b.x1);
  T h = (a.y2 < b.y2 ? a.y2 : b.y2) - (a.y1 > b.y1 ? a.y1 : b.y1);
  w = w > T(0) ? w : T(0);
  h = h > T(0) ? h : T(0);
  const T inter = w * h;
  const T sum = (a.x2 - a.x1) * (a.y2 - a.y1) + (b.x2 - b.x1) * (b.y2 - b.y1);
  if (sum > T(1e-30) && inter < t.k * sum) return false;
  return inter / (sum - inter) > t.exact;
}

// Groups of tile i lie in ranges[2 i] .. ranges[2 i + 1].
__global__ void group_ranges(const int64_t* groups, int n, int64_t* ranges) {
  const int tile = blockIdx.x * blockDim.x + threadIdx.x;
  const int begin = tile * kTile;
  if (begin >= n) return;
  const int end = begin + kTile < n ? begin + kTile : n;
  int64_t low = groups[begin], high = low;
  for (int i = begin + 1; i < end; ++i) {
    low = groups[i] < low ? groups[i] : low;
    high = groups[i] > high ? groups[i] : high;
  }
  ranges[2 * tile] = low;
  ranges[2 * tile + 1] = high;
}

__device__ bool disjoint(const int64_t* ranges, int a, int b) {
  return ranges[2 * a + 1] < ranges[2 * b] || ranges[2 * b + 1] < ranges[2 * a];
}

// Block (column tile, row tile) of the chunk, 64 threads, one a row: bits[row][column tile].
template <class T>
__global__ void overlap_bits(const Box<T>* boxes, const int64_t* groups, const int64_t* ranges, int n,
                             int start, Threshold<T> t, const uint8_t* keep, Word* bits) {
  const int column_tile = blockIdx.x, row_tile = blockIdx.y;
  if (column_tile < row_tile) return;
  const int row = start + row_tile * kTile + threadIdx.x;
  const int column = start + column_tile * kTile;
  Word* word = bits + int64_t(row_tile * kTile + threadIdx.x) * kWords + column_tile;
  if (groups && disjoint(ranges, column / kTile, (start + row_tile * kTile) / kTile)) {
    *word = 0;
    return;
  }
  __shared__ Box<T> others[kTile];
  __shared__ int64_t their_groups[kTile];
  if (column + threadIdx.x < n) {
    others[threadIdx.x] = boxes[column + threadIdx.x];
    if (groups) their_groups[threadIdx.x] = groups[column + threadIdx.x];
  }
  __syncthreads();
  Word found = 0;
  if (row < n && keep[row]) {
    const Box<T> mine = boxes[row];
    const int64_t group = groups ? groups[row] : 0;
    const int count = n - column < kTile ? n - column : kTile;
    for (int i = row_tile == column_tile ? threadIdx.x + 1 : 0; i < count; ++i) {
      if (groups && their_groups[i] != group) continue;
      if (overlap(mine, others[i], t)) found |= Word(1) << i;
    }
  }
  *word = found;
}

// One block. Settles `keep` of the chunk and lists the rows that stay.
__global__ void scan(int n, int start, const Word* bits, uint8_t* keep, int* kept_rows, int* kept_count) {
  __shared__ Word removed[kWords];
  __shared__ Word diagonal[kTile];
  __shared__ int count;
  const int tid = threadIdx.x;
  const int size = n - start < kChunk ? n - start : kChunk;
  if (tid < kWords) removed[tid] = 0;
  if (tid == 0) count = 0;
  __syncthreads();
  for (int i = tid; i < size; i += kScanThreads)
    if (!keep[start + i]) atomicOr(&removed[i / kTile], Word(1) << (i % kTile));
  // No barrier here nor at the loop's end: the one after `diagonal` stands between these bits and who reads
  // them.

  const int tiles = (size + kTile - 1) / kTile;
  for (int tile = 0; tile < tiles; ++tile) {
    const int rows = size - tile * kTile < kTile ? size - tile * kTile : kTile;
    if (tid < rows) diagonal[tid] = bits[int64_t(tile * kTile + tid) * kWords + tile];
    __syncthreads();
    // The serial part of the whole scan: one thread walks the rows of the tile, each of which may remove a
    // later one. At most 64 steps on words in shared memory; everything else here runs on all threads.
    if (tid == 0) {
      Word gone = removed[tile];
      for (int i = 0; i < rows; ++i) {
        if (gone >> i & 1) continue;
        gone |= diagonal[i];
        kept_rows[count++] = start + tile * kTile + i;
      }
      removed[tile] = gone;
    }
    __syncthreads();
    // Thread (row, word): neighbours read neighbouring words.
    const int word = tid % kWords;
    if (word > tile && word < tiles) {
      Word found = 0;
      for (int i = tid / kWords; i < rows; i += kScanThreads / kWords)
        if (!(removed[tile] >> i & 1)) found |= bits[int64_t(tile * kTile + i) * kWords + word];
      if (found) atomicOr(&removed[word], found);
    }
  }
  for (int i = tid; i < size; i += kScanThreads) keep[start + i] = !(removed[i / kTile] >> (i % kTile) & 1);
  if (tid == 0) *kept_count = count;
}

// Block (column tile behind the chunk, batch of kept rows), 64 threads, one a column.
template <class T>
__global__ void sweep(const Box<T>* boxes, const int64_t* groups, const int64_t* ranges, int n, int start,
                      Threshold<T> t, const int* kept_rows, const int* kept_count, uint8_t* keep) {
  const int first = blockIdx.y * kBatch;
  const int count = *kept_count - first < kBatch ? *kept_count - first : kBatch;
  if (count <= 0) return;
  const int tile = (start + kChunk) / kTile + blockIdx.x;
  __shared__ Box<T> others[kBatch];
  __shared__ int64_t their_groups[kBatch];
  __shared__ int any_group;
  if (threadIdx.x == 0) any_group = groups == nullptr;
  __syncthreads();
  for (int i = threadIdx.x; i < count; i += kTile) {
    const int row = kept_rows[first + i];
    others[i] = boxes[row];
    if (groups) {
      their_groups[i] = groups[row];
      if (their_groups[i] >= ranges[2 * tile] && their_groups[i] <= ranges[2 * tile + 1]) any_group = 1;
    }
  }
  __syncthreads();
  const int column = tile * kTile + threadIdx.x;
  if (!any_group || column >= n || !keep[column]) return;
  const Box<T> mine = boxes[column];
  const int64_t group = groups ? groups[column] : 0;
  for (int i = 0; i < count; ++i) {
    if (groups && their_groups[i] != group) continue;
    if (overlap(others[i], mine, t)) {
      keep[column] = 0;  // other batches may write the same
      return;
    }
  }
}

// Places in one int64 buffer: bits of a chunk, the list of kept rows and its length, the ranges of the tiles'
// groups.
struct Scratch {
  static constexpr int64_t kBits = int64_t(kChunk) * kWords, kList = kChunk / 2 + 1;

  Word* bits;
  int* kept_rows;
  int* kept_count;
  int64_t* ranges;

  static int tiles(int n) { return (n + kTile - 1) / kTile; }
  static int64_t size(int n, bool grouped) { return kBits + kList + (grouped ? 2 * tiles(n) : 0); }

  Scratch(int64_t* base, bool grouped)
      : bits(reinterpret_cast<Word*>(base)),
        kept_rows(reinterpret_cast<int*>(base + kBits)),
        kept_count(kept_rows + kChunk),
        ranges(grouped ? base + kBits + kList : nullptr) {}
};

// Boxes (n), best first, and their groups or null -> keep (n), which holds ones. launch(kernel, grid,
// threads, arguments...) starts a kernel behind those before it.
template <class T, class Launch>
void suppress(const Box<T>* boxes, const int64_t* groups, int n, double threshold, uint8_t* keep,
              const Scratch& scratch, const Launch& launch) {
  if (!(threshold < 1)) return;  // no IoU is more than 1
  const Threshold<T> t = make_threshold<T>(threshold);
  const int tiles = Scratch::tiles(n);
  if (groups) launch(group_ranges, dim3((tiles + 127) / 128), 128, groups, n, scratch.ranges);
  for (int start = 0; start < n; start += kChunk) {
    const int here = Scratch::tiles(std::min(kChunk, n - start));
    launch(overlap_bits<T>, dim3(here, here), kTile, boxes, groups, scratch.ranges, n, start, t, keep,
           scratch.bits);
    launch(scan, dim3(1), kScanThreads, n, start, scratch.bits, keep, scratch.kept_rows, scratch.kept_count);
    const int behind = tiles - (start + kChunk) / kTile;
    if (behind <= 0) continue;
    launch(sweep<T>, dim3(behind, kChunk / kBatch), kTile, boxes, groups, scratch.ranges, n, start, t,
           scratch.kept_rows, scratch.kept_count, keep);
  }
}

}  // namespace
}  // namespace detkit::cuda
