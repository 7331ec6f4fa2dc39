// Element types and what is applied to a value: all arithmetic is f32, and a result is rounded once.
#pragma once
#include "port.cuh"

struct bf16 {
    u16 bits;
};

DEVICE float widen(float value) { return value; }
DEVICE float widen(bf16 value) { return float_of(static_cast<u32>(value.bits) << 16); }

DEVICE void narrow(float value, float& out) { out = value; }
DEVICE void narrow(float value, bf16& out) { out.bits = bf16_bits(value); }

// Values of an access of 16 bytes.
template <typename T>
struct Run {
    static constexpr int LENGTH = 16 / sizeof(T);
};

DEVICE void widen_run(const uint4& words, float (&out)[4]) {
    out[0] = float_of(words.x);
    out[1] = float_of(words.y);
    out[2] = float_of(words.z);
    out[3] = float_of(words.w);
}

DEVICE void widen_pair(u32 word, float& first, float& second) {
    first = float_of(word << 16);
    second = float_of(word & 0xffff0000u);
}

DEVICE void widen_run(const uint4& words, float (&out)[8]) {
    widen_pair(words.x, out[0], out[1]);
    widen_pair(words.y, out[2], out[3]);
    widen_pair(words.z, out[4], out[5]);
    widen_pair(words.w, out[6], out[7]);
}

DEVICE u32 word_of(float value) {
    union {
        float value;
        u32 bits;
    } both;
    both.value = value;
    return both.bits;
}

DEVICE uint4 narrow_run(const float (&values)[4]) {
    return make_uint4(word_of(values[0]), word_of(values[1]), word_of(values[2]), word_of(values[3]));
}

DEVICE uint4 narrow_run(const float (&values)[8]) {
    return make_uint4(bf16_pair(values[0], values[1]), bf16_pair(values[2], values[3]),
                      bf16_pair(values[4], values[5]), bf16_pair(values[6], values[7]));
}

// Reads `count` of a run's values, in one access where the run is whole and aligned; missing ones are zero.
template <typename T>
DEVICE void read_run(const T* from, bool whole, int count, float (&out)[Run<T>::LENGTH]) {
    if (whole) {
        widen_run(load16(from), out);
        return;
    }
    UNROLL for (int i = 0; i < Run<T>::LENGTH; i++) out[i] = i < count ? widen(from[i]) : 0.0f;
}

template <typename T>
DEVICE void write_run(T* to, bool whole, int count, const float (&values)[Run<T>::LENGTH]) {
    if (whole) {
        store16(to, narrow_run(values));
        return;
    }
    UNROLL for (int i = 0; i < Run<T>::LENGTH; i++) {
        if (i < count) narrow(values[i], to[i]);
    }
}

// Reads `count` of some floats; with `together`, four at a time where all of them are there.
template <int N>
DEVICE void read_floats(const float* from, bool together, int count, float (&out)[N]) {
    if (N % 4 == 0 && together && count == N) {
        UNROLL for (int i = 0; i + 3 < N; i += 4) {
            const uint4 four = load16(from + i);
            out[i] = float_of(four.x);
            out[i + 1] = float_of(four.y);
            out[i + 2] = float_of(four.z);
            out[i + 3] = float_of(four.w);
        }
        return;
    }
    UNROLL for (int i = 0; i < N; i++) out[i] = i < count ? from[i] : 0.0f;
}

// Writes them in the same way.
template <int N>
DEVICE void write_floats(float* to, bool together, int count, const float (&values)[N]) {
    if (N % 4 == 0 && together && count == N) {
        UNROLL for (int i = 0; i + 3 < N; i += 4) {
            store16(to + i, make_uint4(word_of(values[i]), word_of(values[i + 1]), word_of(values[i + 2]),
                                       word_of(values[i + 3])));
        }
        return;
    }
    UNROLL for (int i = 0; i < N; i++) {
        if (i < count) to[i] = values[i];
    }
}

DEVICE bool aligned16(const void* pointer) { return (reinterpret_cast<u64>(pointer) & 15) == 0; }

enum Activation : u32 { ACT_NONE = 0, ACT_SILU = 1, ACT_GELU_TANH = 2, ACT_GELU_ERF = 3, ACT_QUICK_GELU = 4 };

DEVICE float sigmoid_times(float x, float slope) { return x / (1.0f + expf(-slope * x)); }

DEVICE float gelu_tanh(float x) {
    const float inner = 0.7978846f * fmaf(0.044715f * x * x, x, x);
    return 0.5f * x * (1.0f + tanhf(inner));
}

DEVICE float gelu_erf(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678f)); }

// Applies an activation to a run; the choice is made once, outside of the loop.
template <int N>
DEVICE void activate_run(u32 act, float (&x)[N]) {
    if (act == ACT_SILU || act == ACT_QUICK_GELU) {
        const float slope = act == ACT_SILU ? 1.0f : 1.702f;
        UNROLL for (int i = 0; i < N; i++) x[i] = sigmoid_times(x[i], slope);
    } else if (act == ACT_GELU_TANH) {
        UNROLL for (int i = 0; i < N; i++) x[i] = gelu_tanh(x[i]);
    } else if (act == ACT_GELU_ERF) {
        UNROLL for (int i = 0; i < N; i++) x[i] = gelu_erf(x[i]);
    }
}
