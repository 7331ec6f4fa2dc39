// Attention in f32 arithmetic, for f32 and for heads that the tensor cores' kernel does not take, such as the wide
// single head of a VAE. A block has 64 queries and some columns of the output; more columns are further blocks.
#include "attention.cuh"

constexpr int SIDE = 64;
constexpr int THREADS = 256;
// Values of the depth that are in shared memory at a time, and floats from row to row, so that rows do not meet in a
// bank.
constexpr int DEPTH = 32;
constexpr int DEPTH_PITCH = DEPTH + 4;
constexpr int PITCH = SIDE + 4;

// Shared memory holds the operands of either product, then weights [SIDE, PITCH], then three numbers for each query.
constexpr int OPERANDS = 2 * SIDE * DEPTH_PITCH;

template <typename T, int GROUPS>
struct Plain {
    const Attention& a;
    float* const operands;
    float* const weights;
    float* const most;
    float* const total;
    float* const keep;
    const u32 head, first;
    const int row, col;
    float sums[GROUPS][4][4];

    DEVICE Plain(const Attention& a, float* shared)
        : a(a), operands(shared), weights(shared + OPERANDS), most(weights + SIDE * PITCH), total(most + SIDE),
          keep(total + SIDE), head(blockIdx.y), first(blockIdx.x * SIDE), row(threadIdx.x / 16), col(threadIdx.x % 16) {
        UNROLL for (int g = 0; g < GROUPS; g++) {
            UNROLL for (int i = 0; i < 16; i++) sums[g][i / 4][i % 4] = 0.0f;
        }
        if (threadIdx.x < SIDE) most[threadIdx.x] = LOWEST, total[threadIdx.x] = 0.0f;
    }

    DEVICE void run() {
        const u32 last = first + SIDE < a.queries ? first + SIDE - 1 : a.queries - 1;
        const u32 seen = seen_by(a, last);
        for (u32 key = 0; key < seen; key += SIDE) {
            score(key);
            soften();
            gather(key, seen);
        }
        finish();
    }

    // Copies 64 positions of some values of the head, widened.
    DEVICE void fetch(float* to, const void* from, u32 position, u32 count, u32 value, int width, int pitch) const {
        for (int i = static_cast<int>(threadIdx.x); i < SIDE * width; i += THREADS) {
            const u32 at = position + i / width, d = value + i % width;
            const u64 index = (static_cast<u64>(at) * a.heads + head) * a.dim + d;
            const bool inside = at < count && d < a.dim;
            to[i / width * pitch + i % width] = inside ? widen(static_cast<const T*>(from)[index]) : 0.0f;
        }
    }

    // Scores of 64 keys, scaled, biased and masked, in shared memory.
    DEVICE void score(u32 key) {
        float scores[4][4] = {};
        float* q = operands;
        float* k = operands + SIDE * DEPTH_PITCH;
        for (u32 d = 0; d < a.dim; d += DEPTH) {
            __syncthreads();
            fetch(q, a.q, first, a.queries, d, DEPTH, DEPTH_PITCH);
            fetch(k, a.k, key, a.keys, d, DEPTH, DEPTH_PITCH);
            __syncthreads();
            multiply(q, k, scores);
        }
        UNROLL for (int i = 0; i < 4; i++) {
            const u32 query = first + row + i * 16, seen = seen_by(a, query);
            UNROLL for (int j = 0; j < 4; j++) {
                const u32 at = key + col + j * 16;
                float value = scores[i][j] * a.scale;
                if (at >= seen) value = -INFINITY;
                else if (a.table != nullptr) value += bias_of(a, head, query, at);
                weights[(row + i * 16) * PITCH + col + j * 16] = value;
            }
        }
        __syncthreads();
    }

    // Adds products of rows: queries `row + 16 i`, keys `col + 16 j`.
    DEVICE void multiply(const float* q, const float* k, float (&scores)[4][4]) const {
        for (int d = 0; d < DEPTH; d += 4) {
            float left[4][4], right[4][4];
            UNROLL for (int i = 0; i < 4; i++) {
                widen_run(load16(q + (row + i * 16) * DEPTH_PITCH + d), left[i]);
                widen_run(load16(k + (col + i * 16) * DEPTH_PITCH + d), right[i]);
            }
            UNROLL for (int e = 0; e < 4; e++) {
                UNROLL for (int i = 0; i < 4; i++) {
                    UNROLL for (int j = 0; j < 4; j++) scores[i][j] = fmaf(left[i][e], right[j][e], scores[i][j]);
                }
            }
        }
    }

    // Four threads turn one query's scores into weights.
    DEVICE void soften() {
        const int query = static_cast<int>(threadIdx.x) / 4, part = static_cast<int>(threadIdx.x) % 4;
        float* mine = weights + query * PITCH + part;
        const float before = most[query];
        float top = before;
        for (int i = 0; i < SIDE; i += 4) top = fmaxf(top, mine[i]);
        top = fmaxf(top, shuffle_xor(top, 1));
        top = fmaxf(top, shuffle_xor(top, 2));
        float sum = 0.0f;
        for (int i = 0; i < SIDE; i += 4) {
            mine[i] = expf(mine[i] - top);
            sum += mine[i];
        }
        sum += shuffle_xor(sum, 1);
        sum += shuffle_xor(sum, 2);
        if (part == 0) {
            keep[query] = expf(before - top);
            total[query] = fmaf(total[query], keep[query], sum);
            most[query] = top;
        }
        __syncthreads();
    }

    // Adds the values of 64 keys under their weights.
    DEVICE void gather(u32 key, u32 seen) {
        UNROLL for (int g = 0; g < GROUPS; g++) {
            const u32 value = (blockIdx.z * GROUPS + g) * SIDE;
            if (value >= a.dim) break;
            fetch(operands, a.v, key, seen, value, SIDE, PITCH);
            __syncthreads();
            UNROLL for (int i = 0; i < 4; i++) {
                UNROLL for (int j = 0; j < 4; j++) sums[g][i][j] *= keep[row + i * 16];
            }
            add(sums[g]);
            __syncthreads();
        }
    }

    DEVICE void add(float (&to)[4][4]) const {
        for (int k = 0; k < SIDE; k += 4) {
            float left[4][4], right[4][4];
            UNROLL for (int i = 0; i < 4; i++) {
                widen_run(load16(weights + (row + i * 16) * PITCH + k), left[i]);
                widen_run(load16(operands + (k + i) * PITCH + col * 4), right[i]);
            }
            UNROLL for (int e = 0; e < 4; e++) {
                UNROLL for (int i = 0; i < 4; i++) {
                    UNROLL for (int j = 0; j < 4; j++) to[i][j] = fmaf(left[i][e], right[e][j], to[i][j]);
                }
            }
        }
    }

    DEVICE void finish() const {
        UNROLL for (int i = 0; i < 4; i++) {
            const u32 query = first + row + i * 16;
            if (query >= a.queries) continue;
            T* o = static_cast<T*>(a.o) + (static_cast<u64>(query) * a.heads + head) * a.dim;
            UNROLL for (int g = 0; g < GROUPS; g++) {
                UNROLL for (int j = 0; j < 4; j++) {
                    const u32 d = (blockIdx.z * GROUPS + g) * SIDE + col * 4 + j;
                    if (d < a.dim) narrow(sums[g][i][j] / total[row + i * 16], o[d]);
                }
            }
        }
    }
};

#define ATTENTION(name, T, GROUPS, BLOCKS)                              \
    KERNEL(name, THREADS, BLOCKS)(const Attention a) {                  \
        SHARED(shared);                                                 \
        Plain<T, GROUPS>(a, reinterpret_cast<float*>(shared)).run();    \
    }                                                                   \
    EXPORT(name)

ATTENTION(attention_plain_bf16, bf16, 2, 2)
ATTENTION(attention_plain_f32, float, 2, 2)
ATTENTION(attention_wide_bf16, bf16, 8, 1)
ATTENTION(attention_wide_f32, float, 8, 1)
