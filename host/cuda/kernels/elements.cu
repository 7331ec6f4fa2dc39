// What is done to each element alone: sums, products, gates, activations, rotary embedding, conversion. A thread has a
// run of 16 bytes at a time.
#include "weights.cuh"

constexpr int BLOCK = 256;

// Calls `body(first, count, whole)` for the runs of `elements` values; `whole` runs can be read at once.
template <typename T, typename F>
DEVICE void each_run(u64 elements, bool aligned, F body) {
    constexpr u64 LENGTH = Run<T>::LENGTH;
    const u64 step = static_cast<u64>(gridDim.x) * BLOCK * LENGTH;
    for (u64 at = (static_cast<u64>(blockIdx.x) * BLOCK + threadIdx.x) * LENGTH; at < elements; at += step) {
        const int count = elements - at < LENGTH ? static_cast<int>(elements - at) : static_cast<int>(LENGTH);
        body(at, count, aligned && count == static_cast<int>(LENGTH));
    }
}

enum PairKind : u32 { PAIR_ADD = 0, PAIR_MUL = 1 };

// `x = x + y` or `x * y`.
template <typename T>
DEVICE void pairwise(T* x, const T* y, u64 elements, u32 kind) {
    each_run<T>(elements, aligned16(x) && aligned16(y), [&](u64 at, int count, bool whole) {
        float a[Run<T>::LENGTH], b[Run<T>::LENGTH];
        read_run(x + at, whole, count, a);
        read_run(y + at, whole, count, b);
        UNROLL for (int i = 0; i < Run<T>::LENGTH; i++) a[i] = kind == PAIR_ADD ? a[i] + b[i] : a[i] * b[i];
        write_run(x + at, whole, count, a);
    });
}

KERNEL(pair_bf16, BLOCK, 4)(bf16* x, const bf16* y, u64 elements, u32 kind) { pairwise(x, y, elements, kind); }
EXPORT(pair_bf16)
KERNEL(pair_f32, BLOCK, 4)(float* x, const float* y, u64 elements, u32 kind) { pairwise(x, y, elements, kind); }
EXPORT(pair_f32)

// What is divided below is below 2^32 for most tensors, and the shorter division is several times as fast.
DEVICE u64 quotient(u64 value, u32 by) {
    return value >> 32 ? value / by : static_cast<u32>(value) / by;
}

// `x += y * gate` over rows, with one gate for all of them or one for each.
template <typename T>
DEVICE void gated(T* x, const T* y, const float* gate, u64 elements, u32 cols, u32 each) {
    each_run<T>(elements, aligned16(x) && aligned16(y), [&](u64 at, int count, bool whole) {
        float a[Run<T>::LENGTH], b[Run<T>::LENGTH];
        read_run(x + at, whole, count, a);
        read_run(y + at, whole, count, b);
        u32 col = static_cast<u32>(at - quotient(at, cols) * cols);
        UNROLL for (int i = 0; i < Run<T>::LENGTH; i++) {
            if (i < count) a[i] = fmaf(b[i], gate[each ? at + i : col], a[i]);
            col = col + 1 == cols ? 0 : col + 1;
        }
        write_run(x + at, whole, count, a);
    });
}

KERNEL(gated_bf16, BLOCK, 4)(bf16* x, const bf16* y, const float* gate, u64 elements, u32 cols, u32 each) {
    gated(x, y, gate, elements, cols, each);
}
EXPORT(gated_bf16)
KERNEL(gated_f32, BLOCK, 4)(float* x, const float* y, const float* gate, u64 elements, u32 cols, u32 each) {
    gated(x, y, gate, elements, cols, each);
}
EXPORT(gated_f32)

// `x = min(max(act(x), low), high)`; NaN stays NaN.
template <typename T>
DEVICE void activated(T* x, u64 elements, u32 act, float low, float high) {
    each_run<T>(elements, aligned16(x), [&](u64 at, int count, bool whole) {
        float values[Run<T>::LENGTH];
        read_run(x + at, whole, count, values);
        activate_run(act, values);
        UNROLL for (int i = 0; i < Run<T>::LENGTH; i++) {
            values[i] = values[i] < low ? low : values[i];
            values[i] = values[i] > high ? high : values[i];
        }
        write_run(x + at, whole, count, values);
    });
}

KERNEL(activate_bf16, BLOCK, 4)(bf16* x, u64 elements, u32 act, float low, float high) {
    activated(x, elements, act, low, high);
}
EXPORT(activate_bf16)
KERNEL(activate_f32, BLOCK, 4)(float* x, u64 elements, u32 act, float low, float high) {
    activated(x, elements, act, low, high);
}
EXPORT(activate_f32)

// Factors and summands of some channels; they come with the launch, as the host has them.
constexpr u32 AFFINE = 64;
struct Affine {
    float mul[AFFINE], add[AFFINE];
    u32 first, count;
};

// `x = x * mul + add` for the channels that the launch brings.
template <typename T>
DEVICE void affine(T* x, u64 rows, u32 cols, const Affine& p) {
    const u64 step = static_cast<u64>(gridDim.x) * BLOCK, all = rows * p.count;
    for (u64 i = static_cast<u64>(blockIdx.x) * BLOCK + threadIdx.x; i < all; i += step) {
        const u32 channel = static_cast<u32>(i % p.count);
        T& value = x[i / p.count * cols + p.first + channel];
        narrow(fmaf(widen(value), p.mul[channel], p.add[channel]), value);
    }
}

KERNEL(affine_bf16, BLOCK, 4)(bf16* x, u64 rows, u32 cols, const Affine p) { affine(x, rows, cols, p); }
EXPORT(affine_bf16)
KERNEL(affine_f32, BLOCK, 4)(float* x, u64 rows, u32 cols, const Affine p) { affine(x, rows, cols, p); }
EXPORT(affine_f32)

// Rotates the pairs (2i, 2i + 1) of every head by angles whose cosines and sines are [rows, dim / 2], a run of a head
// at a time.
template <typename T>
DEVICE void rope(T* x, const float* cosines, const float* sines, u64 rows, u32 heads, u32 half) {
    constexpr u32 LENGTH = Run<T>::LENGTH, PAIRS = LENGTH / 2;
    const u32 runs = (half + PAIRS - 1) / PAIRS;
    const bool aligned = half % PAIRS == 0 && aligned16(x);
    const bool together = half % 4 == 0 && aligned16(cosines) && aligned16(sines);
    const u64 step = static_cast<u64>(gridDim.x) * BLOCK, all = rows * heads * runs;
    for (u64 i = static_cast<u64>(blockIdx.x) * BLOCK + threadIdx.x; i < all; i += step) {
        const u64 head = quotient(i, runs), row = quotient(head, heads);
        const u32 pair = static_cast<u32>(i - head * runs) * PAIRS;
        const int pairs = half - pair < PAIRS ? static_cast<int>(half - pair) : static_cast<int>(PAIRS);
        T* at = x + (head * half + pair) * 2;
        float values[LENGTH], cosine[PAIRS], sine[PAIRS];
        read_run(at, aligned, 2 * pairs, values);
        read_floats(cosines + row * half + pair, together, pairs, cosine);
        read_floats(sines + row * half + pair, together, pairs, sine);
        UNROLL for (u32 j = 0; j < PAIRS; j++) {
            const float a = values[2 * j], b = values[2 * j + 1];
            values[2 * j] = a * cosine[j] - b * sine[j];
            values[2 * j + 1] = a * sine[j] + b * cosine[j];
        }
        write_run(at, aligned, 2 * pairs, values);
    }
}

KERNEL(rope_bf16, BLOCK, 4)(bf16* x, const float* cosines, const float* sines, u64 rows, u32 heads, u32 half) {
    rope(x, cosines, sines, rows, heads, half);
}
EXPORT(rope_bf16)
KERNEL(rope_f32, BLOCK, 4)(float* x, const float* cosines, const float* sines, u64 rows, u32 heads, u32 half) {
    rope(x, cosines, sines, rows, heads, half);
}
EXPORT(rope_f32)

constexpr u32 TERMS = 8;
struct Terms {
    const float* values[TERMS];
    float factors[TERMS];
    u32 count;
};

// `out = sum of factor * values`, added in their order.
KERNEL(combine_f32, BLOCK, 4)(float* out, u64 elements, const Terms p) {
    const u64 step = static_cast<u64>(gridDim.x) * BLOCK;
    for (u64 i = static_cast<u64>(blockIdx.x) * BLOCK + threadIdx.x; i < elements; i += step) {
        float sum = p.factors[0] * p.values[0][i];
        UNROLL for (u32 term = 1; term < TERMS; term++) {
            if (term < p.count) sum = fmaf(p.factors[term], p.values[term][i], sum);
        }
        out[i] = sum;
    }
}
EXPORT(combine_f32)

// The mean of every `group` neighbouring values.
template <typename T>
DEVICE void means(const T* x, T* y, u64 elements, u32 group) {
    const u64 step = static_cast<u64>(gridDim.x) * BLOCK;
    for (u64 i = static_cast<u64>(blockIdx.x) * BLOCK + threadIdx.x; i < elements; i += step) {
        float sum = 0.0f;
        for (u32 j = 0; j < group; j++) sum += widen(x[i * group + j]);
        narrow(sum / static_cast<float>(group), y[i]);
    }
}

KERNEL(means_bf16, BLOCK, 4)(const bf16* x, bf16* y, u64 elements, u32 group) { means(x, y, elements, group); }
EXPORT(means_bf16)
KERNEL(means_f32, BLOCK, 4)(const float* x, float* y, u64 elements, u32 group) { means(x, y, elements, group); }
EXPORT(means_f32)
