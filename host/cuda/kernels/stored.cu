// Weights from the form in which they are stored to the form in which they are multiplied.
#include "weights.cuh"

constexpr int BLOCK = 256;

// Values `first..first + elements` of a tensor, `first` a multiple of eight.
template <typename T>
DEVICE void unpack(const Weight& w, u64 first, T* y, u64 elements) {
    const u64 step = static_cast<u64>(gridDim.x) * BLOCK * 8;
    const bool aligned = aligned16(w.data) && aligned16(y);
    for (u64 at = (static_cast<u64>(blockIdx.x) * BLOCK + threadIdx.x) * 8; at < elements; at += step) {
        const bool whole = elements - at >= 8 && (aligned || in_blocks(w));
        if (!whole) {
            for (u64 i = at; i < at + 8 && i < elements; i++) narrow(plain_value(w, first + i), y[i]);
            continue;
        }
        float run[8];
        weight_run(w, first + at, run);
        UNROLL for (int part = 0; part < 8 / Run<T>::LENGTH; part++) {
            float some[Run<T>::LENGTH];
            UNROLL for (int i = 0; i < Run<T>::LENGTH; i++) some[i] = run[part * Run<T>::LENGTH + i];
            write_run(y + at + part * Run<T>::LENGTH, aligned16(y), Run<T>::LENGTH, some);
        }
    }
}

KERNEL(unpack_bf16, BLOCK, 4)(const Weight w, u64 first, bf16* y, u64 elements) { unpack(w, first, y, elements); }
EXPORT(unpack_bf16)
KERNEL(unpack_f32, BLOCK, 4)(const Weight w, u64 first, float* y, u64 elements) { unpack(w, first, y, elements); }
EXPORT(unpack_f32)

// Rows of a convolution's weights, [rows, channels, taps] to [rows, taps, channels], from row `first` on.
template <typename T>
DEVICE void reorder(const Weight& w, u32 first, T* y, u32 rows, u32 channels, u32 taps) {
    const u64 step = static_cast<u64>(gridDim.x) * BLOCK, all = static_cast<u64>(rows) * channels * taps;
    for (u64 i = static_cast<u64>(blockIdx.x) * BLOCK + threadIdx.x; i < all; i += step) {
        const u64 row = first + i / (channels * taps);
        const u32 inside = static_cast<u32>(i % (channels * taps));
        const u64 from = (row * channels + inside % channels) * taps + inside / channels;
        narrow(weight_at(w, from), y[i]);
    }
}

KERNEL(reorder_bf16, BLOCK, 4)(const Weight w, u32 first, bf16* y, u32 rows, u32 channels, u32 taps) {
    reorder(w, first, y, rows, channels, taps);
}
EXPORT(reorder_bf16)
KERNEL(reorder_f32, BLOCK, 4)(const Weight w, u32 first, float* y, u32 rows, u32 channels, u32 taps) {
    reorder(w, first, y, rows, channels, taps);
}
EXPORT(reorder_f32)

constexpr u32 BUCKETS = 1024;
struct Buckets {
    u16 of[BUCKETS];
    u32 first, count;
};

// `table[head, first + i] = w[bucket[i], head]`, for the offsets that the launch brings.
KERNEL(relative_bias, BLOCK, 4)(const Weight w, float* table, u32 heads, u32 offsets, const Buckets p) {
    const u32 i = blockIdx.x * BLOCK + threadIdx.x;
    if (i >= heads * p.count) return;
    const u32 head = i / p.count, offset = i % p.count;
    table[static_cast<u64>(head) * offsets + p.first + offset] =
        weight_at(w, static_cast<u64>(p.of[offset]) * heads + head);
}
EXPORT(relative_bias)
