// A few vectors times one matrix of packed codes: memory hands over a byte, or half of one, for
// each weight, and the numbers are made of it inside the core. Compiled by packed_product.py.
#include <cstdint>
#include <cstring>
#include <vector>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

typedef float lanes __attribute__((vector_size(64)));  // 16 numbers side by side

template <class V, class T>
static inline V load(const T *from) {
  V vector;
  memcpy(&vector, from, sizeof vector);
  return vector;
}

// 16 codes of a byte each, as numbers
static inline lanes numbers_of(const uint8_t *from) {
#ifdef __AVX512F__
  return (lanes)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load<__m128i>(from)));
#else
  float numbers[16];
  for (int lane = 0; lane < 16; lane++) numbers[lane] = (int8_t)from[lane];
  return load<lanes>(numbers);
#endif
}

// the table's numbers for one half of each of 16 bytes
template <int SHIFT>
static inline lanes look_up(lanes table, const uint8_t *from) {
#ifdef __AVX512F__
  const __m512i codes = _mm512_cvtepu8_epi32(load<__m128i>(from));
  return (lanes)_mm512_permutexvar_ps(_mm512_srli_epi32(codes, SHIFT), (__m512)table);
#else
  float numbers[16];
  for (int lane = 0; lane < 16; lane++) numbers[lane] = table[from[lane] >> SHIFT & 15];
  return load<lanes>(numbers);
#endif
}

// out[n][r] = bias[r] + sum over groups g of scales[r][g] * (codes of g . x[n] - zero * sum of x)
struct Product {
  const uint8_t *codes;
  const float *table, *scales;
  const int8_t *zeros;
  const float *bias;
  float *out;
  long height, width, group;

  // STREAMS stretches of `count` rows each, read side by side
  template <bool HALF, int STREAMS>
  void sweep(const float *x, const float *sums, float *to, long first, long count) const {
    const long stride = HALF ? width / 2 : width, groups = width / group;
    const lanes numbers = HALF ? load<lanes>(table) : lanes{};
    for (long r = first; r < first + count; r++) {
      lanes total[STREAMS] = {};
      float shift[STREAMS] = {};
      for (long g = 0; g < groups; g++) {
        lanes part[STREAMS] = {};
        for (long i = g * group; i < (g + 1) * group; i += 32) {
          const lanes first_half = load<lanes>(x + i), second_half = load<lanes>(x + i + 16);
          for (int s = 0; s < STREAMS; s++) {
            const uint8_t *place = codes + (r + s * count) * stride + (HALF ? i / 2 : i);
            __builtin_prefetch(place + 1024);  // ask now for what is read soon
            part[s] += (HALF ? look_up<4>(numbers, place) : numbers_of(place)) * first_half;
            part[s] += (HALF ? look_up<0>(numbers, place) : numbers_of(place + 16)) * second_half;
          }
        }
        for (int s = 0; s < STREAMS; s++) {
          const long at = (r + s * count) * groups + g;
          total[s] += part[s] * scales[at];
          if (zeros) shift[s] += scales[at] * zeros[at] * sums[g];
        }
      }
      for (int s = 0; s < STREAMS; s++) {
        const long row = r + s * count;
        float sum = (bias ? bias[row] : 0) - shift[s];
        for (int lane = 0; lane < 16; lane++) sum += total[s][lane];
        to[row] = sum;
      }
    }
  }

  template <bool HALF>
  void run(int rows, const float *x) const {
    const long count = height / 4, left = height % 4;
    std::vector<float> turned(width), sums(width / group);
    for (int n = 0; n < rows; n++, x += width) {
      sums.assign(sums.size(), 0);
      for (long i = 0; i < width; i++) {
        // of 32 numbers those that meet upper halves of bytes come first, then the others
        turned[HALF ? i / 32 * 32 + i % 2 * 16 + i % 32 / 2 : i] = x[i];
        sums[i / group] += x[i];
      }
      sweep<HALF, 4>(turned.data(), sums.data(), out + n * height, 0, count);
      sweep<HALF, 1>(turned.data(), sums.data(), out + n * height, height - left, left);
    }
  }
};

extern "C" void multiply_packed(int half, int rows, const uint8_t *codes, const float *table,
                                const float *scales, const int8_t *zeros, const float *bias,
                                const float *x, float *out, long height, long width, long group) {
  const Product product{codes, table, scales, zeros, bias, out, height, width, group};
  half ? product.run<true>(rows, x) : product.run<false>(rows, x);
}
