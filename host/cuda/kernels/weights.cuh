// Weights as they are stored: floats, scaled fp8, and the block formats of GGUF. The layouts are those of ggml's
// block structures (github.com/ggml-org/ggml, ggml-common.h); every run of eight values lies under one scale.
#pragma once
#include "numbers.cuh"

enum WeightType : u32 {
    W_NONE = 0,
    W_F32 = 1,
    W_BF16 = 2,
    W_F16 = 3,
    W_F8E4M3 = 4,
    W_Q4_0 = 16,
    W_Q4_1 = 17,
    W_Q5_0 = 18,
    W_Q5_1 = 19,
    W_Q8_0 = 20,
    W_Q2_K = 21,
    W_Q3_K = 22,
    W_Q4_K = 23,
    W_Q5_K = 24,
    W_Q6_K = 25,
};

// A stored tensor, dense. Behind the elements of an fp8 tensor lies its scale, an f32 that need not be aligned.
struct Weight {
    const void* data;
    u64 elements;
    u32 type;
};

// fp8 with 4 exponent bits and no infinity, by way of f16, whose exponent has eight more below.
DEVICE float f8e4m3_value(u8 bits) {
    const u16 half = static_cast<u16>((bits & 0x80) << 8 | (bits & 0x7f) << 7);
    return (bits & 0x7f) == 0x7f ? float_of(0x7fffffffu) : f16_value(half) * 256.0f;
}

DEVICE float f8_scale(const Weight& w) {
    const u8* at = static_cast<const u8*>(w.data) + w.elements;
    return float_of(at[0] | at[1] << 8 | at[2] << 16 | static_cast<u32>(at[3]) << 24);
}

DEVICE float f16_at(const u8* from) { return f16_value(*reinterpret_cast<const u16*>(from)); }

// One value of a format whose elements stand alone.
DEVICE float plain_value(const Weight& w, u64 i) {
    switch (w.type) {
        case W_F32: return static_cast<const float*>(w.data)[i];
        case W_BF16: return widen(static_cast<const bf16*>(w.data)[i]);
        case W_F16: return f16_value(static_cast<const u16*>(w.data)[i]);
        default: return f8e4m3_value(static_cast<const u8*>(w.data)[i]) * f8_scale(w);
    }
}

// Values from `first` on of a tensor without blocks, in accesses of 16 bytes where they are whole.
template <int N>
DEVICE void plain_run(const Weight& w, u64 first, int count, float (&out)[N]) {
    if (w.type == W_F32) {
        const float* from = static_cast<const float*>(w.data) + first;
        read_floats(from, aligned16(from), count, out);
        return;
    }
    if constexpr (N == 8) {
        const bf16* from = static_cast<const bf16*>(w.data) + first;
        if (w.type == W_BF16 && count == N && aligned16(from)) {
            widen_run(load16(from), out);
            return;
        }
    }
    UNROLL for (int i = 0; i < N; i++) out[i] = i < count ? plain_value(w, first + i) : 0.0f;
}

// Adds them, if there is a tensor.
template <int N>
DEVICE void add_plain(const Weight& w, u64 first, int count, float (&values)[N]) {
    if (w.type == W_NONE) return;
    float more[N];
    plain_run(w, first, count, more);
    UNROLL for (int i = 0; i < N; i++) values[i] += more[i];
}

// Blocks of 32: a scale, for `_1` a minimum, for five bits the highest bits, then 16 bytes of nibbles: the low ones
// are the first half of the block.
template <int BITS, bool MINIMUM>
DEVICE void legacy_run(const u8* blocks, u64 i, float (&out)[8]) {
    constexpr int HEAD = MINIMUM ? 4 : 2;
    constexpr int HIGH = BITS == 5 ? 4 : 0;
    const u8* block = blocks + i / 32 * (HEAD + HIGH + 16);
    const int at = static_cast<int>(i % 32);
    const float d = f16_at(block);
    const float m = MINIMUM ? f16_at(block + 2) : 0.0f;
    UNROLL for (int j = 0; j < 8; j++) {
        const int e = at + j;
        const u8 byte = block[HEAD + HIGH + e % 16];
        int q = e < 16 ? byte & 15 : byte >> 4;
        if (BITS == 5) q |= ((block[HEAD + e / 8] >> (e % 8)) & 1) << 4;
        const int centre = MINIMUM ? 0 : (BITS == 5 ? 16 : 8);
        out[j] = MINIMUM ? fmaf(d, static_cast<float>(q), m) : d * static_cast<float>(q - centre);
    }
}

// Blocks of 32: a scale and bytes.
DEVICE void q8_0_run(const u8* blocks, u64 i, float (&out)[8]) {
    const u8* block = blocks + i / 32 * 34;
    const float d = f16_at(block);
    UNROLL for (int j = 0; j < 8; j++) {
        out[j] = d * static_cast<float>(static_cast<i8>(block[2 + i % 32 + j]));
    }
}

// Where a run of eight lies in a block of 256 whose quarters of each half share bytes.
struct Place {
    int half, quarter, line;
    DEVICE explicit Place(u64 i)
        : half(static_cast<int>(i % 256) / 128),
          quarter(static_cast<int>(i % 128) / 32),
          line(static_cast<int>(i % 32)) {}
    // The index of its sixteen.
    DEVICE int sixteen() const { return half * 8 + quarter * 2 + line / 16; }
};

// 16 scales and minima of four bits, 64 bytes of two-bit values, the scale of scales and that of minima.
DEVICE void q2_k_run(const u8* blocks, u64 i, float (&out)[8]) {
    const u8* block = blocks + i / 256 * 84;
    const Place at(i);
    const u8 scale = block[at.sixteen()];
    const float d = f16_at(block + 80) * static_cast<float>(scale & 15);
    const float m = f16_at(block + 82) * static_cast<float>(scale >> 4);
    const u8* q = block + 16 + at.half * 32 + at.line;
    UNROLL for (int j = 0; j < 8; j++) out[j] = d * static_cast<float>((q[j] >> (2 * at.quarter)) & 3) - m;
}

// 32 bytes of high bits, 64 of two-bit values, 16 packed scales of six bits, the scale of scales.
DEVICE void q3_k_run(const u8* blocks, u64 i, float (&out)[8]) {
    const u8* block = blocks + i / 256 * 110;
    const Place at(i);
    const u8* scales = block + 96;
    const int s = at.sixteen();
    const int low = s < 8 ? scales[s] & 15 : scales[s - 8] >> 4;
    const int high = (scales[8 + s % 4] >> (2 * (s / 4))) & 3;
    const float d = f16_at(block + 108) * static_cast<float>((low | high << 4) - 32);
    const u8* q = block + 32 + at.half * 32 + at.line;
    UNROLL for (int j = 0; j < 8; j++) {
        const int set = (block[at.line + j] >> (at.half * 4 + at.quarter)) & 1;
        out[j] = d * static_cast<float>(((q[j] >> (2 * at.quarter)) & 3) - (set ? 0 : 4));
    }
}

// The scale and the minimum of a block's 32 values number `s`, packed in six bits each.
DEVICE void six_bits(const u8* packed, int s, int& scale, int& minimum) {
    if (s < 4) {
        scale = packed[s] & 63;
        minimum = packed[s + 4] & 63;
    } else {
        scale = (packed[s + 4] & 15) | (packed[s - 4] >> 6) << 4;
        minimum = packed[s + 4] >> 4 | (packed[s] >> 6) << 4;
    }
}

// Two scales, packed scales and minima of 32 values each, for five bits the high bits, 128 bytes of nibbles.
template <int BITS>
DEVICE void q45_k_run(const u8* blocks, u64 i, float (&out)[8]) {
    constexpr int HIGH = BITS == 5 ? 32 : 0;
    const u8* block = blocks + i / 256 * (144 + HIGH);
    const int s = static_cast<int>(i % 256) / 32, line = static_cast<int>(i % 32);
    int scale, minimum;
    six_bits(block + 4, s, scale, minimum);
    const float d = f16_at(block) * static_cast<float>(scale), m = f16_at(block + 2) * static_cast<float>(minimum);
    const u8* q = block + 16 + HIGH + s / 2 * 32 + line;
    UNROLL for (int j = 0; j < 8; j++) {
        int value = s % 2 ? q[j] >> 4 : q[j] & 15;
        if (BITS == 5) value |= ((block[16 + line + j] >> s) & 1) << 4;
        out[j] = d * static_cast<float>(value) - m;
    }
}

// 128 bytes of low nibbles, 64 of two high bits, 16 signed scales, the scale of scales.
DEVICE void q6_k_run(const u8* blocks, u64 i, float (&out)[8]) {
    const u8* block = blocks + i / 256 * 210;
    const Place at(i);
    const float d = f16_at(block + 208) * static_cast<float>(static_cast<i8>(block[192 + at.sixteen()]));
    const u8* low = block + at.half * 64 + (at.quarter & 1) * 32 + at.line;
    const u8* high = block + 128 + at.half * 32 + at.line;
    UNROLL for (int j = 0; j < 8; j++) {
        const int nibble = at.quarter < 2 ? low[j] & 15 : low[j] >> 4;
        out[j] = d * static_cast<float>((nibble | ((high[j] >> (2 * at.quarter)) & 3) << 4) - 32);
    }
}

// Eight values from `i` on, a multiple of eight.
DEVICE void block_run(const Weight& w, u64 i, float (&out)[8]) {
    const u8* blocks = static_cast<const u8*>(w.data);
    switch (w.type) {
        case W_Q4_0: return legacy_run<4, false>(blocks, i, out);
        case W_Q4_1: return legacy_run<4, true>(blocks, i, out);
        case W_Q5_0: return legacy_run<5, false>(blocks, i, out);
        case W_Q5_1: return legacy_run<5, true>(blocks, i, out);
        case W_Q8_0: return q8_0_run(blocks, i, out);
        case W_Q2_K: return q2_k_run(blocks, i, out);
        case W_Q3_K: return q3_k_run(blocks, i, out);
        case W_Q4_K: return q45_k_run<4>(blocks, i, out);
        case W_Q5_K: return q45_k_run<5>(blocks, i, out);
        default: return q6_k_run(blocks, i, out);
    }
}

DEVICE bool in_blocks(const Weight& w) { return w.type >= W_Q4_0; }

// One value.
DEVICE float weight_at(const Weight& w, u64 i) {
    if (!in_blocks(w)) return plain_value(w, i);
    float run[8];
    block_run(w, i / 8 * 8, run);
    float value = 0.0f;
    UNROLL for (int j = 0; j < 8; j++) value = pick(j == static_cast<int>(i % 8), run[j], value);
    return value;
}

// Eight values from `i` on, a multiple of eight, of data that is aligned to 16 bytes.
DEVICE void weight_run(const Weight& w, u64 i, float (&out)[8]) {
    if (w.type == W_BF16) {
        widen_run(load16(static_cast<const bf16*>(w.data) + i), out);
    } else if (w.type == W_F32) {
        float low[4], high[4];
        widen_run(load16(static_cast<const float*>(w.data) + i), low);
        widen_run(load16(static_cast<const float*>(w.data) + i + 4), high);
        UNROLL for (int j = 0; j < 4; j++) out[j] = low[j], out[4 + j] = high[j];
    } else if (in_blocks(w)) {
        block_run(w, i, out);
    } else if (w.type == W_F8E4M3) {
        const u8* from = static_cast<const u8*>(w.data) + i;
        const float scale = f8_scale(w);
        UNROLL for (int j = 0; j < 8; j++) out[j] = f8e4m3_value(from[j]) * scale;
    } else {
        UNROLL for (int j = 0; j < 8; j++) out[j] = plain_value(w, i + j);
    }
}
