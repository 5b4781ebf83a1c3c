// Linear (eq 8) and momentum (eq 12 to 14) attention on a CPU, in float32, forward.
//
// A sequence is cut into chunks of C positions, between which only the sums S, P [d, e] and z [d] travel.
// With f the feature map, i, j = 1..C inside the chunk, w(n) = (1 - beta^n) / (1 - beta^C) and the unit
// gamma (1 - beta^C) / (1 - beta) left to the last step:
//
//   num_i = f(q_i)^T (S + beta w(i) P) + sum_{j<=i} w(i-j+1) (f(q_i) . f(k_j)) v_j
//   den_i = f(q_i)^T z + sum_{j<=i} f(q_i) . f(k_j) + eps
//   S <- S + beta w(C) P + sum_j w(C-j+1) f(k_j) v_j^T;  P <- beta^C P + sum_j beta^(C-j) f(k_j) v_j^T
//
// Linear attention is w = 1 without P. Not causal, one S of all keys, weighted by their place, serves all.
//
// Tiling: all products are of row-major matrices, by a tile [ROWS, VECTORS * LANES] that stays in registers;
// an output tile takes its three or four products there and is written once. Scores above the diagonal are
// neither computed, by whole tiles, nor read, so what a row does not see may be NaN. Traffic: q, k and v are
// read once and o is written once; a chunk's f(q), f(k)^T, v and scores, and S and P, stay in L1 and L2.
// Work: about C (d + e) + 4 d e operations a position, in momentum 8 d e.
//
// Threads take pairs of (batch, head). Where these are fewer than threads, a pair's sequence is cut into
// segments, whose own sums are found first and then added up in order (S1 + beta w(L2) P1 + S2, and so on),
// so that every segment can start from what is before it at once: 2 d e more operations a position, 4 d e in
// momentum.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#ifndef CHUNK
#error "CHUNK, the positions of a chunk, comes from the command line"
#endif

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;  // SSE, NEON; elsewhere the compiler splits it up
#endif
constexpr int C = CHUNK;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int ROWS = 8;  // of 32 registers
#else
constexpr int ROWS = 4;  // of 16
#endif
constexpr int VECTORS = 2;
constexpr int PAD = 16;  // dims and chunks are whole multiples of it, filled up with 0
static_assert(C % PAD == 0 && PAD % LANES == 0 && PAD % ROWS == 0, "a chunk is whole tiles");

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef std::int32_t ints __attribute__((vector_size(LANES * 4)));
typedef std::uint32_t bits __attribute__((vector_size(LANES * 4)));

inline vec load(const float* p) {
    vec x;
    std::memcpy(&x, p, sizeof x);
    return x;
}
inline void store(float* p, vec x) { std::memcpy(p, &x, sizeof x); }

inline float sum(vec x) {
    float total = 0;
    for (int l = 0; l < LANES; ++l) total += x[l];
    return total;
}

template <int... L>
inline ints numbered(std::integer_sequence<int, L...>) {
    return ints{L...};
}
// x in the first `count` lanes and 0 in the others, whatever they hold.
inline vec first_lanes(vec x, long count) {
    return numbered(std::make_integer_sequence<int, LANES>{}) < (std::int32_t)count ? x : vec{};
}
inline vec load_part(const float* p, long count) {
    float whole[LANES] = {};
    std::memcpy(whole, p, count * sizeof(float));
    return load(whole);
}
inline void store_part(float* p, vec x, long count) { std::memcpy(p, &x, count * sizeof(float)); }

// exp(x) for x <= 0, to 2 units in the last place; 0 below the smallest normal number; NaN for NaN. x is
// n log 2 + r with |r| <= log(2) / 2, and exp(r) a polynomial (Cephes' coefficients).
inline vec exp_below_zero(vec x) {
    const float shift = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest whole number in the low bits
    vec t = x * 1.44269504088896341f + shift;
    vec n = t - shift;
    vec r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + (r + 1.0f);
    bits scaled = (bits)p + ((bits)t << 23);
    return x < -87.3f ? vec{} : (vec)scaled;
}

// f(x) = elu(x) + 1, as relu(x) + exp(min(x, 0)): adding 1 to elu would cancel where x is far below 0.
inline vec feature(vec x) {
    vec zero{};
    return (x > zero ? x : zero) + exp_below_zero(x > zero ? zero : x);
}

#ifdef __has_builtin
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#ifndef SHUFFLE
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, ints{__VA_ARGS__})
#endif

template <int H, int... L>
inline void exchange(vec& a, vec& b, std::integer_sequence<int, L...>) {
    vec low = SHUFFLE(a, b, ((L & H) ? LANES + L - H : L)...);
    vec high = SHUFFLE(a, b, ((L & H) ? LANES + L : L + H)...);
    a = low;
    b = high;
}

// Transposes LANES rows: swaps the off-diagonal quarters of ever larger squares.
template <int H = 1>
inline void transpose(vec (&x)[LANES]) {
    if constexpr (H < LANES) {
#pragma GCC unroll 16
        for (int r = 0; r < LANES; ++r)
            if (!(r & H)) exchange<H>(x[r], x[r + H], std::make_integer_sequence<int, LANES>{});
        transpose<2 * H>(x);
    }
}

// The register tile: acc [ROWS, N * LANES] += a [ROWS, depth] b [depth, N * LANES].
template <int N>
struct Tile {
    vec acc[ROWS][N] = {};

    inline void multiply(const float* a, long a_row, const float* b, long b_row, long depth) {
        for (long k = 0; k < depth; ++k) {
            vec bs[N];
#pragma GCC unroll 4
            for (int n = 0; n < N; ++n) bs[n] = load(b + k * b_row + n * LANES);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
                for (int n = 0; n < N; ++n) acc[r][n] += a[r * a_row + k] * bs[n];
        }
    }

    // The same with a lower triangular [ROWS, ROWS]: what is above its diagonal is not read.
    inline void multiply_triangle(const float* a, long a_row, const float* b, long b_row) {
#pragma GCC unroll 8
        for (int k = 0; k < ROWS; ++k) {
            vec bs[N];
#pragma GCC unroll 4
            for (int n = 0; n < N; ++n) bs[n] = load(b + k * b_row + n * LANES);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
                for (int n = 0; n < N; ++n)
                    if (r >= k) acc[r][n] += a[r * a_row + k] * bs[n];
        }
    }

    // Calls visit(row, vector, its LANES numbers).
    template <class Visit>
    inline void each(Visit visit) {
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
            for (int n = 0; n < N; ++n) visit(r, n, acc[r][n]);
    }

    inline void scale(const float* by) {
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
            for (int n = 0; n < N; ++n) acc[r][n] *= by[r];
    }
};

// Calls each(tile column, std::integral_constant of vectors) over `columns`, a multiple of LANES.
template <class Each>
inline void over_columns(long columns, Each each) {
    long at = 0;
    for (; at + VECTORS * LANES <= columns; at += VECTORS * LANES)
        each(at, std::integral_constant<int, VECTORS>{});
    for (; at < columns; at += LANES) each(at, std::integral_constant<int, 1>{});
}

}  // namespace

extern "C" {

// What a call computes; call.py has the same fields in the same order.
struct Problem {
    const float *q, *k, *v;  // [pairs, length, d or e]
    float* o;                // [pairs, length, e]
    // By position in a chunk: w(C) .. w(1), then C of anything; beta w(1) .. beta w(C); beta^(C-1) .. beta^0.
    const float *near, *roll, *decayed;
    const float* by_key;  // [length], eq 14's weight of every key; null where causal or linear
    std::int64_t pairs, length, d, e, segment, threads;  // segment: positions, a multiple of C
    std::int32_t causal, momentum;
    float eps, unit;
    float chunk_roll, chunk_gone, segment_roll, segment_gone;  // beta w(L) and 1 - beta^L of L = C, segment
};
}

namespace {

long padded(long n) { return (n + PAD - 1) / PAD * PAD; }

// S [d, e], P [d, e] and z [d] of one (batch, head) at one position, dims padded. P may be null.
struct Sums {
    float *S, *P, *z;

    Sums(const Problem& p, float* at) {
        const long square = padded(p.d) * padded(p.e);
        S = std::exchange(at, at + square);
        P = has_P(p) ? std::exchange(at, at + square) : nullptr;
        z = at;
    }
    static bool has_P(const Problem& p) { return p.causal && p.momentum; }
    static long size(const Problem& p) {
        return padded(p.d) * padded(p.e) * (has_P(p) ? 2 : 1) + padded(p.d);
    }
};

struct Buffer {
    float* data;
    explicit Buffer(long n) : data(new (std::align_val_t{64}) float[n]()) {}
    ~Buffer() { operator delete[](data, std::align_val_t{64}); }
    Buffer(const Buffer&) = delete;
};

// One thread's chunk, and the products over it.
class Worker {
  public:
    explicit Worker(const Problem& problem)
        : p(problem), d(padded(p.d)), e(padded(p.e)),
          memory(2 * C * d + 3 * C * e + C * C + d + Sums::size(p)) {
        float* at = memory.data;
        auto take = [&](long n) { return std::exchange(at, at + n); };
        fq = take(C * d), fk = take(C * d);
        v = take(C * e), near_v = take(C * e), decayed_v = take(C * e);
        scores = take(C * C), key_sum = take(d), own = at;
    }

    Sums zeroed() {
        std::fill_n(own, Sums::size(p), 0.0f);
        return Sums(p, own);
    }

    // Adds the keys of a segment to the sums.
    void add_keys(long pair, long segment, const Sums& sums) {
        each_chunk(segment, [&](long start, long count) {
            load_keys(pair, start, count);
            advance(sums, padded(count));
        });
    }

    // The outputs of a segment. Causal: from the sums before it, which its keys are added to; else from those
    // of all keys.
    void answer(long pair, long segment, const Sums& sums) {
        each_chunk(segment, [&](long start, long count) {
            load_queries(pair, start, count);
            if (p.causal) load_keys(pair, start, count);
            for (long i = 0; i < count; i += ROWS)
                rows(sums, pair, start, i, std::min<long>(ROWS, count - i));
            if (p.causal) advance(sums, padded(count));
        });
    }

  private:
    const Problem& p;
    const long d, e;
    Buffer memory;
    float* fq;                      // f(q) [C, d]
    float* fk;                      // f(k)^T [d, C]
    float *v, *near_v, *decayed_v;  // [C, e], and its rows by w(C-j+1) and by beta^(C-j)
    float* scores;                  // w(i-j+1) f(q_i) . f(k_j) [C, C]
    float* key_sum;                 // of f(k) [d]
    float* own;                     // S, P and z, where the sequence is one segment

    template <class Each>
    void each_chunk(long segment, Each each) {
        const long end = std::min<long>(p.length, (segment + 1) * p.segment);
        for (long start = segment * p.segment; start < end; start += C)
            each(start, std::min<long>(C, end - start));
    }

    // f of LANES rows of x [count, n] from `row`, in the columns from `column`; 0 outside of x.
    static void features(vec (&block)[LANES], const float* x, long count, long n, long row, long column) {
        const long width = std::min<long>(LANES, n - column);
        for (int r = 0; r < LANES; ++r) {
            const float* at = x + (row + r) * n + column;
            if (row + r >= count || width <= 0) block[r] = vec{};
            else if (width == LANES) block[r] = feature(load(at));
            else block[r] = first_lanes(feature(load_part(at, width)), width);
        }
    }

    void load_queries(long pair, long start, long count) {
        const float* x = p.q + (pair * p.length + start) * p.d;
        vec block[LANES];
        for (long row = 0; row < count; row += LANES)
            for (long c = 0; c < d; c += LANES) {
                features(block, x, count, p.d, row, c);
                for (int r = 0; r < LANES; ++r) store(fq + (row + r) * d + c, block[r]);
            }
    }

    void load_keys(long pair, long start, long count) {
        const float* x = p.k + (pair * p.length + start) * p.d;
        const long used = padded(count);
        vec block[LANES];
        for (long c = 0; c < d; c += LANES) {
            vec total{};
            for (long row = 0; row < used; row += LANES) {
                features(block, x, count, p.d, row, c);
                for (int r = 0; r < LANES; ++r) total += block[r];
                transpose(block);
                for (int r = 0; r < LANES; ++r) store(fk + (c + r) * C + row, block[r]);
            }
            store(key_sum + c, total);
        }
        load_values(p.v + (pair * p.length + start) * p.e, p.by_key ? p.by_key + start : nullptr, count);
    }

    // A last chunk that is not full ends early, and its weights are not those of its end: what the sums are
    // after it nobody asks.
    void load_values(const float* x, const float* by_key, long count) {
        for (long j = 0; j < padded(count); ++j)
            for (long c = 0; c < e; c += LANES) {
                const long width = j < count ? std::min<long>(LANES, p.e - c) : 0;
                vec row{};
                if (width == LANES) row = load(x + j * p.e + c);
                else if (width > 0) row = load_part(x + j * p.e + c, width);
                if (by_key && width > 0) row *= by_key[j];
                store(v + j * e + c, row);
                if (!Sums::has_P(p)) continue;
                store(near_v + j * e + c, row * p.near[j]);
                store(decayed_v + j * e + c, row * p.decayed[j]);
            }
    }

    // Makes the sums before the chunk those after it; its positions from `used` on are 0.
    void advance(const Sums& sums, long used) {
        for (long r = 0; r < p.d; r += ROWS)
            over_columns(e, [&](long c, auto vectors) {
                constexpr int N = decltype(vectors)::value;
                float* S = sums.S + r * e + c;
                Tile<N> tile;
                tile.multiply(fk + r * C, C, (sums.P ? near_v : v) + c, e, used);
                tile.each([&](int i, int n, vec x) {
                    float* at = S + i * e + n * LANES;
                    if (sums.P) x += p.chunk_roll * load(at - sums.S + sums.P);
                    store(at, load(at) + x);
                });
                if (!sums.P) return;
                Tile<N> decayed;
                decayed.multiply(fk + r * C, C, decayed_v + c, e, used);
                decayed.each([&](int i, int n, vec x) {
                    // Not beta^C * P: float32 has the small 1 - beta^C more exactly, and the error adds up.
                    float* at = S - sums.S + sums.P + i * e + n * LANES;
                    store(at, load(at) + (x - p.chunk_gone * load(at)));
                });
            });
        for (long c = 0; c < d; c += LANES) store(sums.z + c, load(sums.z + c) + load(key_sum + c));
    }

    // The outputs of `count` <= ROWS positions of the chunk, from its position i on.
    void rows(const Sums& sums, long pair, long start, long i, long count) {
        const float* query = fq + i * d;
        vec den[ROWS] = {};
        for (long c = 0; c < d; c += LANES)
            for (int r = 0; r < ROWS; ++r) den[r] += load(query + r * d + c) * load(sums.z + c);
        if (p.causal) score(i, den);
        float scale[ROWS];
        for (int r = 0; r < ROWS; ++r) scale[r] = p.unit / (sum(den[r]) + p.eps);
        float* o = p.o + (pair * p.length + start + i) * p.e;
        over_columns(e, [&](long c, auto vectors) {
            Tile<decltype(vectors)::value> tile;
            if (sums.P) {
                tile.multiply(query, d, sums.P + c, e, p.d);
                tile.scale(p.roll + i);
            }
            tile.multiply(query, d, sums.S + c, e, p.d);
            if (p.causal) {
                tile.multiply(scores + i * C, C, v + c, e, i);
                tile.multiply_triangle(scores + i * C + i, C, v + i * e + c, e);
            }
            tile.scale(scale);
            tile.each([&](int r, int n, vec x) {
                const long at = c + n * LANES, width = std::min<long>(LANES, p.e - at);
                if (r >= count || width <= 0) return;
                if (width == LANES) store(o + r * p.e + at, x);
                else store_part(o + r * p.e + at, x, width);
            });
        });
    }

    // The weighted scores of ROWS positions from i on; the bare ones are added to den, lane by lane.
    void score(long i, vec (&den)[ROWS]) {
        over_columns((i + ROWS + LANES - 1) / LANES * LANES, [&](long j, auto vectors) {
            Tile<decltype(vectors)::value> tile;
            tile.multiply(fq + i * d, d, fk + j, C, p.d);
            tile.each([&](int r, int n, vec x) {
                const long first = j + n * LANES;
                den[r] += first_lanes(x, i + r + 1 - first);
                if (Sums::has_P(p)) x *= load(p.near + C - 1 - (i + r) + first);
                store(scores + (i + r) * C + first, x);
            });
        });
    }
};

// Calls each(worker, item) for all items, by as many threads as there are workers.
template <class Each>
void share(std::vector<std::unique_ptr<Worker>>& workers, long items, Each each) {
    std::atomic<long> next{0};
    auto work = [&](Worker& worker) {
        for (long item; (item = next++) < items;) each(worker, item);
    };
    std::vector<std::thread> others;
    for (std::size_t n = 1; n < workers.size() && (long)n < items; ++n) try {
            others.emplace_back(work, std::ref(*workers[n]));
        } catch (const std::system_error&) {
            break;  // no more threads are to be had: the others do it
        }
    work(*workers[0]);
    for (auto& other : others) other.join();
}

// From every segment's own sums those before it, one segment after another; not causal, all keys' in each.
void add_up(const Problem& p, long segments, float* sums) {
    const long size = Sums::size(p), square = padded(p.d) * padded(p.e);
    Buffer memory(size);
    Sums total(p, memory.data);
    for (long s = 0; s < segments; ++s) {
        Sums own(p, sums + s * size);
        for (long n = 0; n < square; ++n) {
            const float S = own.S[n], P = total.P ? own.P[n] : 0, before = total.P ? total.P[n] : 0;
            own.S[n] = total.S[n];
            total.S[n] += p.segment_roll * before + S;
            if (!total.P) continue;
            own.P[n] = before;
            total.P[n] = before + (P - p.segment_gone * before);
        }
        for (long n = 0; n < padded(p.d); ++n) {
            const float z = std::exchange(own.z[n], total.z[n]);
            total.z[n] += z;
        }
    }
    for (long s = 0; s < segments && !p.causal; ++s) std::copy_n(memory.data, size, sums + s * size);
}

void attend(const Problem& p) {
    const long segments = (p.length + p.segment - 1) / p.segment, items = p.pairs * segments;
    const long size = Sums::size(p);
    std::vector<std::unique_ptr<Worker>> workers;
    do workers.push_back(std::make_unique<Worker>(p));
    while ((long)workers.size() < std::min<long>(p.threads, items));
    if (segments == 1) {
        share(workers, items, [&](Worker& worker, long pair) {
            const Sums sums = worker.zeroed();
            if (!p.causal) worker.add_keys(pair, 0, sums);
            worker.answer(pair, 0, sums);
        });
        return;
    }
    Buffer memory(items * size);
    share(workers, items, [&](Worker& worker, long item) {
        const long pair = item / segments, segment = item % segments;
        if (p.causal && segment == segments - 1) return;  // nothing follows it
        worker.add_keys(pair, segment, Sums(p, memory.data + item * size));
    });
    for (long pair = 0; pair < p.pairs; ++pair) add_up(p, segments, memory.data + pair * segments * size);
    share(workers, items, [&](Worker& worker, long item) {
        worker.answer(item / segments, item % segments, Sums(p, memory.data + item * size));
    });
}

}  // namespace

// Computes it. 0, or 1 where there is no memory.
extern "C" int mtbench_attend(const Problem* problem) {
    try {
        attend(*problem);
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}
