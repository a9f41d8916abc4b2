// A few vectors times one matrix of packed codes: memory hands over a byte, or half of one, for
// each weight, and the numbers are made of it inside the core. Compiled by packed_product.py.
#include <cstdint>
#include <cstring>
#include <vector>
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

typedef float half_of_them __attribute__((vector_size(32)));
typedef float quarter_of_them __attribute__((vector_size(16)));

#if defined(__AVX2__) && !defined(__AVX512F__)
struct lanes {  // 16 numbers side by side: a vector of 64 bytes would go through memory here
  half_of_them low, high;
};
static inline lanes operator+(lanes a, lanes b) { return {a.low + b.low, a.high + b.high}; }
static inline lanes operator-(lanes a, lanes b) { return {a.low - b.low, a.high - b.high}; }
static inline lanes operator*(lanes a, lanes b) { return {a.low * b.low, a.high * b.high}; }
static inline lanes operator+(lanes a, float b) { return {a.low + b, a.high + b}; }
static inline lanes operator*(lanes a, float b) { return {a.low * b, a.high * b}; }
static inline lanes &operator+=(lanes &a, lanes b) { return a = a + b; }
#else
typedef float lanes __attribute__((vector_size(64)));  // 16 numbers side by side
#endif

#ifdef __AVX512F__
const int STREAMS = 4;  // rows read side by side: sums and numbers must fit into the registers
#else
const int STREAMS = 2;
#endif
const int TILE = STREAMS, FEW = 2;  // from more vectors than FEW on, rows are unpacked once for all

template <class V, class T>
static inline V load(const T *from) {
  V vector;
  memcpy(&vector, from, sizeof vector);
  return vector;
}

template <class V>
static inline V two_halves(const void *whole) {  // the sum of its two halves
  return load<V>((const char *)whole) + load<V>((const char *)whole + sizeof(V));
}

#if defined(__AVX2__) && !defined(__AVX512F__)
template <>
inline lanes load<lanes, float>(const float *from) {
  return {load<half_of_them>(from), load<half_of_them>(from + 8)};
}
#endif

static inline float sum_of(lanes numbers) {
  const half_of_them eight = two_halves<half_of_them>(&numbers);
  const quarter_of_them four = two_halves<quarter_of_them>(&eight);
  return (four[0] + four[2]) + (four[1] + four[3]);
}

// 16 codes of a byte each, as numbers
static inline lanes numbers_of(const uint8_t *from) {
#ifdef __AVX512F__
  return (lanes)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load<__m128i>(from)));
#elif defined(__AVX2__)
  half_of_them numbers[2];
  for (int half = 0; half < 2; half++)
    numbers[half] = (half_of_them)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(
        _mm_loadl_epi64((const __m128i *)(from + 8 * half))));
  return {numbers[0], numbers[1]};
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
#elif defined(__AVX2__)
  const __m256 tables[2] = {(__m256)table.low, (__m256)table.high};
  half_of_them numbers[2];
  for (int half = 0; half < 2; half++) {  // three bits choose of eight, the fourth of which eight
    const __m256i codes =
        _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(from + 8 * half)));
    const __m256i place = _mm256_srli_epi32(codes, SHIFT);
    numbers[half] = (half_of_them)_mm256_blendv_ps(_mm256_permutevar8x32_ps(tables[0], place),
                                     _mm256_permutevar8x32_ps(tables[1], place),
                                     _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28 - SHIFT)));
  }
  return {numbers[0], numbers[1]};
#else
  float numbers[16];
  for (int lane = 0; lane < 16; lane++) numbers[lane] = table[from[lane] >> SHIFT & 15];
  return load<lanes>(numbers);
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)
// the same for a table of whole numbers: all 16 are looked up at once, as bytes
template <int SHIFT>
static inline lanes look_up(__m128i table, const uint8_t *from) {
  const __m128i codes = _mm_and_si128(_mm_srli_epi16(load<__m128i>(from), SHIFT),
                                      _mm_set1_epi8(15));
  const __m128i bytes = _mm_shuffle_epi8(table, codes);
  const __m256i low = _mm256_cvtepi8_epi32(bytes);
  const __m256i high = _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes));
  return {(half_of_them)_mm256_cvtepi32_ps(low), (half_of_them)_mm256_cvtepi32_ps(high)};
}

static inline __m128i as_bytes(const float *table) {
  int8_t whole[16];
  for (int code = 0; code < 16; code++) whole[code] = (int8_t)table[code];
  return load<__m128i>(whole);
}

static bool is_whole(const float *table) {
  for (int code = 0; code < 16; code++)
    if (!(table[code] >= -128 && table[code] <= 127 && table[code] == (int8_t)table[code]))
      return false;
  return true;
}
#else
static inline lanes as_bytes(const float *table) { return load<lanes>(table); }
static bool is_whole(const float *) { return false; }
#endif

enum Form { BYTES, HALVES, WHOLE_HALVES };  // a code a byte; two, of any table, of whole numbers

// out[n][r] = bias[r] + sum over groups g of scales[r][g] * (codes of g . x[n] - zero * sum of x)
template <Form FORM>
struct Product {
  static const bool HALF = FORM != BYTES;
  const uint8_t *codes;
  const float *table, *scales;
  const int8_t *zeros;
  const float *bias;
  float *out;
  long height, width, group;

  long stride() const { return HALF ? width / 2 : width; }
  auto numbers() const {
    if constexpr (FORM == WHOLE_HALVES) return as_bytes(table);
    else if constexpr (HALF) return load<lanes>(table);
    else return lanes{};
  }

  // 16 numbers: of bytes, or of one half each of them
  template <bool SECOND, class Known>
  static lanes numbers_at(Known known, const uint8_t *from) {
    if constexpr (HALF) return look_up<SECOND ? 0 : 4>(known, from);
    else return numbers_of(from + (SECOND ? 16 : 0));
  }

  // MANY stretches of `count` rows each, read side by side, times one vector
  template <int MANY, bool SHIFTED, int GROUP>
  void sweep(const float *x, const float *sums, float *to, long first, long count) const {
    const auto known = numbers();
    const long groups = width / group;
    for (long r = first; r < first + count; r++) {
      lanes total[MANY] = {};
      float shift[MANY] = {};
      const uint8_t *place[MANY];
      const float *scale[MANY];
      for (int s = 0; s < MANY; s++) {
        place[s] = codes + (r + s * count) * stride();
        scale[s] = scales + (r + s * count) * groups;
      }
      for (long g = 0, i = 0; g < groups; g++) {
        lanes part[MANY] = {};
        for (const long end = i + (GROUP ? GROUP : group); i < end; i += 32) {
          const lanes first_half = load<lanes>(x + i), second_half = load<lanes>(x + i + 16);
          for (int s = 0; s < MANY; s++) {
            const uint8_t *here = place[s] + (HALF ? i / 2 : i);
            __builtin_prefetch(here + 1024);  // ask now for what is read soon
            part[s] += numbers_at<false>(known, here) * first_half;
            part[s] += numbers_at<true>(known, here) * second_half;
          }
        }
        for (int s = 0; s < MANY; s++) {
          total[s] += part[s] * scale[s][g];
          if (SHIFTED) shift[s] += scale[s][g] * zeros[(r + s * count) * groups + g] * sums[g];
        }
      }
      for (int s = 0; s < MANY; s++) {
        const long row = r + s * count;
        to[row] = (bias ? bias[row] : 0) - shift[s] + sum_of(total[s]);
      }
    }
  }

  // the numbers of one row of the matrix, in the order in which `x` is turned
  void unpack(long row, float *to) const {
    const auto known = numbers();
    for (long g = 0; g < width / group; g++) {
      const long at = row * (width / group) + g;
      const lanes scale = lanes{} + scales[at], zero = lanes{} + (zeros ? zeros[at] : 0.0f);
      for (long i = g * group; i < (g + 1) * group; i += 32) {
        const uint8_t *place = codes + row * stride() + (HALF ? i / 2 : i);
        const lanes pair[2] = {numbers_at<false>(known, place), numbers_at<true>(known, place)};
        for (int half = 0; half < 2; half++) {
          const lanes number = (pair[half] - zero) * scale;
          memcpy(to + i + 16 * half, &number, sizeof number);
        }
      }
    }
  }

  // HIGH unpacked rows of the matrix times WIDE vectors
  template <int HIGH, int WIDE>
  void tile(const float *matrix, const float *x, long row, long n) const {
    lanes sums[HIGH][WIDE] = {};
    for (long i = 0; i < width; i += 16)
      for (int h = 0; h < HIGH; h++)
        for (int w = 0; w < WIDE; w++)
          sums[h][w] += load<lanes>(matrix + h * width + i) * load<lanes>(x + w * width + i);
    for (int h = 0; h < HIGH; h++)
      for (int w = 0; w < WIDE; w++)
        out[(n + w) * height + row + h] = (bias ? bias[row + h] : 0) + sum_of(sums[h][w]);
  }

  template <int HIGH>
  void rows_at(long row, int rows, const float *x, float *space) const {
    for (int h = 0; h < HIGH; h++) unpack(row + h, space + h * width);
    int n = 0;
    for (; n + TILE <= rows; n += TILE) tile<HIGH, TILE>(space, x + n * width, row, n);
    for (; n < rows; n++) tile<HIGH, 1>(space, x + n * width, row, n);
  }

  // GROUP is the size of a group where the compiler may know it, else 0
  template <bool SHIFTED, int GROUP>
  void all(const float *x, const float *sums, float *to) const {
    const long count = height / STREAMS, left = height % STREAMS;
    sweep<STREAMS, SHIFTED, GROUP>(x, sums, to, 0, count);
    sweep<1, SHIFTED, GROUP>(x, sums, to, height - left, left);
  }

  void run(int rows, const float *x) const {
    std::vector<float> turned(rows * width), sums(width / group), space(TILE * width);
    for (long i = 0; i < rows * width; i++)
      // of 32 numbers those that meet upper halves of bytes come first, then the others
      turned[HALF ? i / 32 * 32 + i % 2 * 16 + i % 32 / 2 : i] = x[i];
    if (rows > FEW) {
      long row = 0;
      for (; row + TILE <= height; row += TILE)
        rows_at<TILE>(row, rows, turned.data(), space.data());
      for (; row < height; row++) rows_at<1>(row, rows, turned.data(), space.data());
      return;
    }
    for (int n = 0; n < rows; n++, x += width) {
      sums.assign(sums.size(), 0);
      for (long i = 0; zeros && i < width; i++) sums[i / group] += x[i];
      const float *vector = turned.data() + n * width;
      float *to = out + n * height;
      if (zeros) all<true, 0>(vector, sums.data(), to);
      else if (group == 32) all<false, 32>(vector, sums.data(), to);
      else all<false, 0>(vector, sums.data(), to);
    }
  }
};

extern "C" void multiply_packed(int half, int rows, const uint8_t *codes, const float *table,
                                const float *scales, const int8_t *zeros, const float *bias,
                                const float *x, float *out, long height, long width, long group) {
#define RUN(FORM) \
  Product<FORM>{codes, table, scales, zeros, bias, out, height, width, group}.run(rows, x)
  if (!half) RUN(BYTES);
  else if (is_whole(table)) RUN(WHOLE_HALVES);
  else RUN(HALVES);
}
