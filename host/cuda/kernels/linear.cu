// Linear layers.
#include "products.cuh"

template <typename T, typename TILE, bool ALIGNED>
DEVICE void linear(u8* shared, const void* x, const Product& p) {
    const Corner corner = corner_of<TILE>(p);
    RowLoader<T, TILE::ROWS, TILE::THREADS, ALIGNED> rows(static_cast<const T*>(x), p.rows, corner.row, p.depth);
    multiply<T, TILE, ALIGNED>(shared, p, corner, rows);
}

#define LINEAR(name, T, TILE, ALIGNED)                                                \
    KERNEL(name, TILE::THREADS, 2)(const void* x, const Product p) {                  \
        SHARED(shared);                                                               \
        linear<T, TILE, ALIGNED>(shared, x, p);                                       \
    }                                                                                 \
    EXPORT(name)

LINEAR(linear_bf16_large, bf16, Large, true)
LINEAR(linear_bf16_small, bf16, Small, true)
LINEAR(linear_bf16_odd, bf16, Small, false)
LINEAR(linear_f32_large, float, Tall, true)
LINEAR(linear_f32_small, float, Small, true)
LINEAR(linear_f32_odd, float, Small, false)

// A few rows at once against weights as they are stored: a warp sums one column, its lanes eight values of the depth
// each, so that the weights are read once and nothing of them is kept.
struct Few {
    const void* x;
    void* y;
    Weight w, bias;
    u32 rows, cols, depth;
    u32 act;
    // Whether eight values can be read at once.
    u32 aligned;
};

constexpr int FEW = 4;

template <typename T>
DEVICE void few_values(const T* x, u32 at, u32 depth, bool aligned, float (&out)[8]) {
    constexpr int LENGTH = Run<T>::LENGTH;
    UNROLL for (int part = 0; part < 8 / LENGTH; part++) {
        float run[LENGTH];
        const u32 first = at + part * LENGTH;
        const int count = first < depth ? static_cast<int>(depth - first) : 0;
        read_run(x + first, aligned && count >= LENGTH, count, run);
        UNROLL for (int i = 0; i < LENGTH; i++) out[part * LENGTH + i] = run[i];
    }
}

DEVICE void few_weights(const Few& p, u64 row, u32 at, float (&out)[8]) {
    if (p.aligned) {
        weight_run(p.w, row * p.depth + at, out);
        return;
    }
    UNROLL for (int i = 0; i < 8; i++) out[i] = at + i < p.depth ? plain_value(p.w, row * p.depth + at + i) : 0.0f;
}

template <typename T>
DEVICE void few(const Few& p) {
    const u32 lane = threadIdx.x & 31, col = blockIdx.x * 8 + (threadIdx.x >> 5), first = blockIdx.y * FEW;
    if (col >= p.cols) return;
    const u32 rows = p.rows - first < FEW ? p.rows - first : FEW;
    const T* x = static_cast<const T*>(p.x) + static_cast<u64>(first) * p.depth;
    float sums[FEW] = {};
#pragma unroll 1
    for (u32 at = lane * 8; at < p.depth; at += 256) {
        float w[8];
        few_weights(p, col, at, w);
        UNROLL for (int r = 0; r < FEW; r++) {
            float values[8];
            // Rows that are not there read the first again, and nobody writes their sums.
            const u64 row = r < static_cast<int>(rows) ? r : 0;
            few_values(x + row * p.depth, at, p.depth, p.aligned, values);
            UNROLL for (int i = 0; i < 8; i++) sums[r] = fmaf(values[i], w[i], sums[r]);
        }
    }
    // Lane r finishes row r.
    float mine = 0.0f;
    UNROLL for (int r = 0; r < FEW; r++) {
        UNROLL for (int mask = 16; mask > 0; mask /= 2) sums[r] += shuffle_xor(sums[r], mask);
        mine = pick(static_cast<int>(lane) == r, sums[r], mine);
    }
    if (lane >= rows) return;
    float value[1] = {mine};
    add_plain(p.bias, col, 1, value);
    activate_run(p.act, value);
    narrow(value[0], static_cast<T*>(p.y)[static_cast<u64>(first + lane) * p.cols + col]);
}

KERNEL(linear_few_bf16, 256, 2)(const Few p) { few<bf16>(p); }
EXPORT(linear_few_bf16)
KERNEL(linear_few_f32, 256, 2)(const Few p) { few<float>(p); }
EXPORT(linear_few_f32)
