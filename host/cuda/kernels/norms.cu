// Norms over rows of channels, fused with what follows them: weight, bias, modulation, SiLU. A row belongs to a warp or
// to a block, is read once, and waits in shared memory as f32 where it fits.
#include "weights.cuh"

enum NormKind : u32 { NORM_LAYER = 0, NORM_RMS = 1, NORM_L2 = 2 };

struct RowNorm {
    const void* x;
    // May be `x`.
    void* y;
    Weight weight, bias;
    // f32, one row for all or one for each; null for none. `y = norm(x) * (1 + scale) + shift`.
    const float* scale;
    const float* shift;
    u32 scale_each, shift_each;
    u32 rows, cols;
    u32 kind, silu;
    float eps;
    // Whether shared memory holds a row as f32, and whether all operands can be read 16 bytes at a time.
    u32 kept, aligned;
};

constexpr int BLOCK = 256;

// The sum over the threads of a row. `slots` has a float for each warp of the block.
template <int GROUP>
DEVICE float sum_of(float value, float* slots) {
    UNROLL for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
    if (GROUP == 32) return value;
    if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = 0.0f;
    UNROLL for (int i = 0; i < BLOCK / 32; i++) sum += slots[i];
    // The slots may be written again as soon as this returns.
    __syncthreads();
    return sum;
}

template <typename T, int GROUP>
struct Row {
    static constexpr int LENGTH = Run<T>::LENGTH;
    const RowNorm& p;
    const T* x;
    float* kept;
    const u32 lane;

    // The run at `at`: from shared memory if it is there already.
    DEVICE void values(u32 at, bool again, float (&out)[LENGTH]) const {
        const int count = p.cols - at < LENGTH ? static_cast<int>(p.cols - at) : LENGTH;
        if (again && p.kept) {
            read_floats(kept + at, p.aligned, count, out);
            return;
        }
        read_run(x + at, p.aligned && count == LENGTH, count, out);
        if (p.kept) write_floats(kept + at, p.aligned, count, out);
    }

    // This thread's share of the sum of `(value - centre)^POWER`.
    template <int POWER>
    DEVICE float sum(float centre, bool again) const {
        float sum = 0.0f;
        for (u32 at = lane * LENGTH; at < p.cols; at += GROUP * LENGTH) {
            float run[LENGTH];
            values(at, again, run);
            UNROLL for (int i = 0; i < LENGTH; i++) {
                const float difference = at + i < p.cols ? run[i] - centre : 0.0f;
                sum = POWER == 1 ? sum + difference : fmaf(difference, difference, sum);
            }
        }
        return sum;
    }
};

// Multiplies with a few values of a row of weights.
template <int N>
DEVICE void weigh(const Weight& w, u32 at, int count, float (&out)[N]) {
    if (w.type == W_NONE) return;
    float weights[N];
    plain_run(w, at, count, weights);
    UNROLL for (int i = 0; i < N; i++) out[i] *= weights[i];
}

// A few values of the rows that scale or shift.
template <int N>
DEVICE void row_of(const RowNorm& p, const float* rows, u32 each, u32 row, u32 at, int count, float (&out)[N]) {
    const float* from = rows + (each ? static_cast<u64>(row) * p.cols : 0) + at;
    read_floats(from, aligned16(from), count, out);
}

template <int N>
DEVICE void modulate(const RowNorm& p, u32 row, u32 at, int count, float (&out)[N]) {
    float values[N];
    if (p.scale != nullptr) {
        row_of(p, p.scale, p.scale_each, row, at, count, values);
        UNROLL for (int i = 0; i < N; i++) out[i] *= 1.0f + values[i];
    }
    if (p.shift != nullptr) {
        row_of(p, p.shift, p.shift_each, row, at, count, values);
        UNROLL for (int i = 0; i < N; i++) out[i] += values[i];
    }
}

template <typename T, int GROUP>
DEVICE void norm(u8* shared, const RowNorm& p) {
    constexpr int ROWS = BLOCK / GROUP, LENGTH = Run<T>::LENGTH;
    const u32 group = threadIdx.x / GROUP, row = blockIdx.x * ROWS + group;
    // With a row for each warp nobody waits for the others; with one for the block, all have the same row.
    if (row >= p.rows) return;
    float* slots = reinterpret_cast<float*>(shared);
    float* kept = slots + BLOCK / 32 + static_cast<u64>(group) * p.cols;
    const u64 start = static_cast<u64>(row) * p.cols;
    const Row<T, GROUP> values{p, static_cast<const T*>(p.x) + start, kept, threadIdx.x % GROUP};

    float mean = 0.0f;
    const bool centred = p.kind == NORM_LAYER;
    if (centred) mean = sum_of<GROUP>(values.template sum<1>(0.0f, false), slots) / p.cols;
    const float squares = sum_of<GROUP>(values.template sum<2>(mean, centred), slots);
    const float factor = p.kind == NORM_L2 ? sqrtf(static_cast<float>(p.cols)) / fmaxf(sqrtf(squares), 1e-12f)
                                           : 1.0f / sqrtf(squares / p.cols + p.eps);
    T* y = static_cast<T*>(p.y) + start;
    for (u32 at = values.lane * LENGTH; at < p.cols; at += GROUP * LENGTH) {
        const int count = p.cols - at < LENGTH ? static_cast<int>(p.cols - at) : LENGTH;
        float run[LENGTH];
        values.values(at, true, run);
        UNROLL for (int i = 0; i < LENGTH; i++) run[i] = (run[i] - mean) * factor;
        weigh(p.weight, at, count, run);
        add_plain(p.bias, at, count, run);
        modulate(p, row, at, count, run);
        activate_run(p.silu ? ACT_SILU : ACT_NONE, run);
        write_run(y + at, p.aligned && count == LENGTH, count, run);
    }
}

#define NORM(name, T, GROUP)                 \
    KERNEL(name, BLOCK, 4)(const RowNorm p) { \
        SHARED(shared);                      \
        norm<T, GROUP>(shared, p);           \
    }                                        \
    EXPORT(name)

NORM(norm_warp_bf16, bf16, 32)
NORM(norm_warp_f32, float, 32)
NORM(norm_block_bf16, bf16, 256)
NORM(norm_block_f32, float, 256)
