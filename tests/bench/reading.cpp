// Reads numbers and adds them up, and does nothing else: the speed of memory for one core.
#include <cstring>

typedef float lanes __attribute__((vector_size(64)));

static inline lanes load(const float *from) {
  lanes numbers;
  memcpy(&numbers, from, sizeof numbers);
  return numbers;
}

// STREAMS stretches side by side
template <int STREAMS>
float sum(const float *from, long size) {
  long part = size / STREAMS / 16 * 16;
  lanes sums[STREAMS] = {};
  for (long i = 0; i < part; i += 16)
    for (int s = 0; s < STREAMS; s++) {
      __builtin_prefetch(from + s * part + i + 512);
      sums[s] += load(from + s * part + i);
    }
  float total = 0;
  for (int s = 0; s < STREAMS; s++)
    for (int lane = 0; lane < 16; lane++) total += sums[s][lane];
  return total;
}

extern "C" float sum_1(const float *from, long size) { return sum<1>(from, size); }
extern "C" float sum_4(const float *from, long size) { return sum<4>(from, size); }
extern "C" float sum_8(const float *from, long size) { return sum<8>(from, size); }
