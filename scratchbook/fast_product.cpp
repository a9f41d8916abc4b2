// A few vectors times one matrix, at the speed at which memory hands over the matrix.
// Compiled and called by fast_decoding.py.
#include <cstdint>
#include <cstring>
#ifdef __linux__
#include <sys/mman.h>
#endif

typedef float lanes __attribute__((vector_size(64)));  // 16 numbers side by side
typedef uint32_t words __attribute__((vector_size(64)));
typedef uint16_t halves __attribute__((vector_size(32)));

static inline lanes load(const float *from) {
  lanes numbers;
  memcpy(&numbers, from, sizeof numbers);
  return numbers;
}
static inline lanes load(const uint16_t *from) {  // a bfloat16 is the upper half of a float
  halves upper;
  memcpy(&upper, from, sizeof upper);
  return (lanes)(__builtin_convertvector(upper, words) << 16);
}
static inline float widen(float number) { return number; }
static inline float widen(uint16_t upper) {
  uint32_t bits = (uint32_t)upper << 16;
  float number;
  memcpy(&number, &bits, sizeof number);
  return number;
}

// out[n][r] = bias[r] + sum over i of weight[r][i] * x[n][i]
template <class T>
struct Product {
  const T *weight, *bias;
  const float *x;
  float *out;
  long height, width;

  // STREAMS stretches of `count` rows each, read side by side: while numbers of one are on
  // their way, the others are added up
  template <int ROWS, int STREAMS>
  void sweep(long first, long count) const {
    for (long r = first; r < first + count; r++) {
      lanes sums[STREAMS][ROWS] = {};
      for (long i = 0; i < width; i += 16)
        for (int s = 0; s < STREAMS; s++) {
          const T *place = weight + (r + s * count) * width + i;
          __builtin_prefetch((const char *)place + 2048);  // ask now for what is read soon
          for (int n = 0; n < ROWS; n++) sums[s][n] += load(place) * load(x + n * width + i);
        }
      for (int s = 0; s < STREAMS; s++)
        for (int n = 0; n < ROWS; n++) {
          long row = r + s * count;
          float total = bias ? widen(bias[row]) : 0;
          for (int lane = 0; lane < 16; lane++) total += sums[s][n][lane];
          out[n * height + row] = total;
        }
    }
  }

  template <int ROWS>
  void run(int rows) const {
    if (rows < ROWS) {
      if constexpr (ROWS > 1) run<ROWS - 1>(rows);
      return;
    }
    constexpr int streams = ROWS <= 6 ? 4 : 3;  // 24 sums at most fit into a core's registers
    long count = height / streams, left = height % streams;
    sweep<ROWS, streams>(0, count);
    sweep<ROWS, 1>(height - left, left);
  }
};

extern "C" void multiply_float32(int rows, const float *weight, const float *bias, const float *x,
                                 float *out, long height, long width) {
  Product<float>{weight, bias, x, out, height, width}.run<8>(rows);
}
extern "C" void multiply_bfloat16(int rows, const uint16_t *weight, const uint16_t *bias,
                                  const float *x, float *out, long height, long width) {
  Product<uint16_t>{weight, bias, x, out, height, width}.run<8>(rows);
}

// Memory in pages of 2 MB instead of 4 kB: fewer addresses to look up while it streams by. Linux
// moves it where it lies (MADV_COLLAPSE, from 6.1 on); where that cannot be, nothing happens.
extern "C" void use_large_pages(const void *from, long size) {
#ifdef __linux__
  const intptr_t page = 2 << 20, first = (intptr_t)from / page * page;
  const long whole = ((intptr_t)from + size - first + page - 1) / page * page;
  const int collapse = 25;  // older headers do not name it
  if (!madvise((void *)first, whole, MADV_HUGEPAGE)) madvise((void *)first, whole, collapse);
#endif
}
