// Attention of bf16 on the tensor cores, for heads of at most 128 values in whole chunks of eight. A warp has 32
// queries; scores and weights of the softmax stay in its registers, where the layout of one product's result is that of
// the next one's operand.
#include "attention.cuh"

constexpr int WARPS = 4;
constexpr int QUERIES = WARPS * 32;

// Rows of `DIM` values lie in chunks of 16 bytes, swizzled so that eight rows that are read at once do not meet in a
// bank: chunk c of a row is where chunk c ^ swizzle would be.
template <int DIM>
DEVICE int swizzle_of(int row) {
    return DIM % 64 == 0 ? row & 7 : (row >> 1) & 3;
}

// Starts copying `ROWS` positions of a head; missing ones and missing values are zero.
template <int DIM, int ROWS>
DEVICE void fetch(u8* to, const void* from, const Attention& a, u32 head, u32 first, u32 count) {
    constexpr int CHUNKS = DIM / 8;
    static_assert(ROWS * CHUNKS % (WARPS * 32) == 0, "every thread copies as many chunks");
    const bf16* head_at = static_cast<const bf16*>(from) + static_cast<u64>(head) * a.dim;
#pragma unroll 1
    for (int i = 0; i < ROWS * CHUNKS; i += WARPS * 32) {
        const int index = i + static_cast<int>(threadIdx.x), row = index / CHUNKS, chunk = index % CHUNKS;
        const u32 position = first + row;
        const bool inside = position < count && chunk * 8 < static_cast<int>(a.dim);
        const u64 at = inside ? static_cast<u64>(position) * a.heads * a.dim + chunk * 8 : 0;
        copy_async(to + row * DIM * 2 + ((chunk ^ swizzle_of<DIM>(row)) << 4), head_at + at, inside);
    }
}

// A lane's row of the matrices that it reads, and which of two neighbouring chunks.
template <int DIM>
struct Reader {
    const int start, low;
    DEVICE Reader(int row, int half) : start(row * DIM * 2), low(half ^ swizzle_of<DIM>(row)) {}
    // Its place for the pair of chunks number `pair`, `rows` further down, a multiple of eight.
    DEVICE int at(int rows, int pair) const { return start + rows * DIM * 2 + ((low ^ pair * 2) << 4); }
};

template <int DIM, int KEYS>
struct Flash {
    static constexpr int Q_BYTES = QUERIES * DIM * 2, K_BYTES = KEYS * DIM * 2;
    // Queries, and two stages of keys and of values.
    static constexpr int SHARED_BYTES = Q_BYTES + 4 * K_BYTES;

    const Attention& a;
    const u32 head, first;
    const int lane, warp;
    u8* const shared;
    float sums[2][DIM / 8][4];
    float most[2][2], total[2][2];

    DEVICE Flash(const Attention& a, u8* shared)
        : a(a), head(blockIdx.y), first(blockIdx.x * QUERIES), lane(threadIdx.x & 31), warp(threadIdx.x >> 5),
          shared(shared) {
        UNROLL for (int m = 0; m < 2; m++) {
            UNROLL for (int half = 0; half < 2; half++) most[m][half] = LOWEST, total[m][half] = 0.0f;
            UNROLL for (int d = 0; d < DIM / 8; d++) {
                UNROLL for (int e = 0; e < 4; e++) sums[m][d][e] = 0.0f;
            }
        }
    }

    DEVICE u8* keys(int part) { return shared + Q_BYTES + (part & 1) * K_BYTES; }
    DEVICE u8* values(int part) { return shared + Q_BYTES + (2 + (part & 1)) * K_BYTES; }

    DEVICE void run() {
        const u32 last = first + QUERIES < a.queries ? first + QUERIES - 1 : a.queries - 1;
        const u32 seen = seen_by(a, last);
        const int parts = static_cast<int>((seen + KEYS - 1) / KEYS);
        fetch<DIM, QUERIES>(shared, a.q, a, head, first, a.queries);
        fetch<DIM, KEYS>(keys(0), a.k, a, head, 0, a.keys);
        copy_commit();
        fetch<DIM, KEYS>(values(0), a.v, a, head, 0, a.keys);
        copy_commit();
        for (int part = 0; part < parts; part++) {
            // Two groups are under way: this part's keys are the older. The barrier also frees the other stage.
            copy_wait<1>();
            __syncthreads();
            if (part + 1 < parts) fetch<DIM, KEYS>(keys(part + 1), a.k, a, head, (part + 1) * KEYS, a.keys);
            copy_commit();
            step(part, parts);
        }
        finish();
    }

    DEVICE void step(int part, int parts) {
        float scores[2][KEYS / 8][4];
        multiply_keys(keys(part), scores);
        soften(part * KEYS, scores);
        copy_wait<1>();
        __syncthreads();
        if (part + 1 < parts) fetch<DIM, KEYS>(values(part + 1), a.v, a, head, (part + 1) * KEYS, a.keys);
        copy_commit();
        multiply_values(values(part), scores);
    }

    DEVICE void multiply_keys(const u8* k, float (&scores)[2][KEYS / 8][4]) {
        UNROLL for (int m = 0; m < 2; m++) {
            UNROLL for (int j = 0; j < KEYS / 8; j++) {
                UNROLL for (int e = 0; e < 4; e++) scores[m][j][e] = 0.0f;
            }
        }
        const Reader<DIM> rows(warp * 32 + (lane & 15), lane >> 4);
        const Reader<DIM> cols((lane & 7) + (lane >> 4) * 8, (lane >> 3) & 1);
        UNROLL for (int d = 0; d < DIM / 16; d++) {
            u32 left[2][4];
            UNROLL for (int m = 0; m < 2; m++) ldmatrix(left[m], shared + rows.at(m * 16, d));
            UNROLL for (int j = 0; j < KEYS / 16; j++) {
                u32 right[4];
                ldmatrix(right, k + cols.at(j * 16, d));
                UNROLL for (int m = 0; m < 2; m++) {
                    mma_bf16(scores[m][2 * j], left[m], right[0], right[1]);
                    mma_bf16(scores[m][2 * j + 1], left[m], right[2], right[3]);
                }
            }
        }
    }

    // The query of a register's row.
    DEVICE u32 query_of(int m, int half) const { return first + warp * 32 + m * 16 + half * 8 + lane / 4; }

    // Scores in powers of two, with what is not seen at minus infinity.
    DEVICE void adjust(u32 key, float (&scores)[2][KEYS / 8][4]) const {
        const float factor = a.scale * LOG2_E;
        UNROLL for (int m = 0; m < 2; m++) {
            UNROLL for (int j = 0; j < KEYS / 8; j++) {
                UNROLL for (int e = 0; e < 4; e++) scores[m][j][e] *= factor;
            }
        }
        // Only the last parts have keys that some query does not see.
        const bool whole = key + KEYS <= seen_by(a, first);
        if (whole && a.table == nullptr) return;
        UNROLL for (int m = 0; m < 2; m++) {
            UNROLL for (int half = 0; half < 2; half++) {
                const u32 query = query_of(m, half), seen = seen_by(a, query);
                UNROLL for (int j = 0; j < KEYS / 8; j++) {
                    UNROLL for (int e = 0; e < 2; e++) {
                        const u32 at = key + j * 8 + lane % 4 * 2 + e;
                        float& score = scores[m][j][half * 2 + e];
                        if (at >= seen) score = -INFINITY;
                        else if (a.table != nullptr) score = fmaf(bias_of(a, head, query, at), LOG2_E, score);
                    }
                }
            }
        }
    }

    // Scores become weights relative to the running maximum; what was summed so far is scaled to it.
    DEVICE void soften(u32 key, float (&scores)[2][KEYS / 8][4]) {
        adjust(key, scores);
        UNROLL for (int m = 0; m < 2; m++) {
            float keep[2];
            UNROLL for (int half = 0; half < 2; half++) {
                float top = most[m][half];
                UNROLL for (int j = 0; j < KEYS / 8; j++) {
                    top = fmaxf(top, fmaxf(scores[m][j][half * 2], scores[m][j][half * 2 + 1]));
                }
                top = fmaxf(top, shuffle_xor(top, 1));
                top = fmaxf(top, shuffle_xor(top, 2));
                keep[half] = exp2_fast(most[m][half] - top);
                most[m][half] = top;
                float sum = 0.0f;
                UNROLL for (int j = 0; j < KEYS / 8; j++) {
                    UNROLL for (int e = 0; e < 2; e++) {
                        float& score = scores[m][j][half * 2 + e];
                        score = exp2_fast(score - top);
                        sum += score;
                    }
                }
                total[m][half] = fmaf(total[m][half], keep[half], sum);
            }
            // After the first parts the maximum seldom moves.
            if (!any_lane(keep[0] != 1.0f || keep[1] != 1.0f)) continue;
            UNROLL for (int d = 0; d < DIM / 8; d++) {
                UNROLL for (int e = 0; e < 4; e++) sums[m][d][e] *= keep[e / 2];
            }
        }
    }

    DEVICE void multiply_values(const u8* v, const float (&weights)[2][KEYS / 8][4]) {
        const Reader<DIM> rows(lane & 15, lane >> 4);
        UNROLL for (int j = 0; j < KEYS / 16; j++) {
            u32 left[2][4];
            UNROLL for (int m = 0; m < 2; m++) {
                UNROLL for (int e = 0; e < 4; e++) {
                    const float(&pair)[4] = weights[m][2 * j + e / 2];
                    left[m][e] = bf16_pair(pair[e % 2 * 2], pair[e % 2 * 2 + 1]);
                }
            }
            UNROLL for (int d = 0; d < DIM / 16; d++) {
                u32 right[4];
                ldmatrix_trans(right, v + rows.at(j * 16, d));
                UNROLL for (int m = 0; m < 2; m++) {
                    mma_bf16(sums[m][2 * d], left[m], right[0], right[1]);
                    mma_bf16(sums[m][2 * d + 1], left[m], right[2], right[3]);
                }
            }
        }
    }

    DEVICE void finish() {
        UNROLL for (int m = 0; m < 2; m++) {
            UNROLL for (int half = 0; half < 2; half++) {
                float sum = total[m][half];
                sum += shuffle_xor(sum, 1);
                sum += shuffle_xor(sum, 2);
                const u32 query = query_of(m, half);
                if (query >= a.queries) continue;
                const float share = 1.0f / sum;
                bf16* o = static_cast<bf16*>(a.o) + (static_cast<u64>(query) * a.heads + head) * a.dim;
                UNROLL for (int d = 0; d < DIM / 8; d++) {
                    const int at = d * 8 + lane % 4 * 2;
                    if (d * 8 >= static_cast<int>(a.dim)) continue;
                    const float(&out)[4] = sums[m][d];
                    *reinterpret_cast<u32*>(o + at) = bf16_pair(out[half * 2] * share, out[half * 2 + 1] * share);
                }
            }
        }
    }
};

#define ATTENTION(name, DIM, KEYS, BLOCKS)               \
    KERNEL(name, 128, BLOCKS)(const Attention a) {       \
        SHARED(shared);                                  \
        Flash<DIM, KEYS>(a, shared).run();               \
    }                                                    \
    EXPORT(name)

ATTENTION(attention_bf16_64, 64, 32, 2)
ATTENTION(attention_bf16_96, 96, 32, 2)
ATTENTION(attention_bf16_128, 128, 32, 2)
