// A GPU's threads on this machine's processor: g++ compiles the kernels with this in place of nvcc's world.
//
// Each thread of a block is a fiber. It runs until it must wait for others: at a barrier of its block, or in an
// operation of its whole warp, which the last of the 32 to come carries out for all. What a GPU leaves open is made
// worse here, so that a kernel which relies on it computes something else than its reference: fibers run in an order
// that can be changed, shared memory starts as NaN, and an asynchronous copy spoils its target at once and fills it
// when it is waited for. Misuse (a barrier that some threads do not reach, a misaligned access) ends the process with a
// message.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#define DEVICE inline
#define KERNEL(name, threads, blocks) static void name
#define SHARED(name) u8* name = emulation::shared_memory()
#define UNROLL

struct Index {
    u32 x, y, z;
};
struct alignas(16) uint4 {
    u32 x, y, z, w;
};
inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }

extern Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

constexpr int WARP = 32;

// What the lanes of a warp bring to an operation, and what they get.
struct Lane {
    u32 in[8];
    const void* address;
    u32 out[4];
};

enum class Collective { NONE, SHUFFLE_XOR, ANY, MMA_BF16, LDMATRIX, LDMATRIX_TRANS };

u8* shared_memory();
void barrier();
// The calling thread's place in its warp's exchange.
Lane& lane();
// Waits until all lanes have come with the same operation, which the last of them carries out.
void together(Collective operation);
void copy_start(void* to, const void* from, bool inside);
void copy_commit();
void copy_wait(int left);
[[noreturn]] void fail(const char* what);

// Runs `thread()` once for each thread of a grid.
struct Body {
    void (*run)(void*);
    void* data;
};
void launch(Index grid, Index block, u32 shared_bytes, Body body);

template <typename... A, std::size_t... I>
void call(void (*kernel)(A...), void** parameters, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_const_t<A>*>(parameters[I])...);
}

template <typename... A>
void start(void (*kernel)(A...), Index grid, Index block, u32 shared_bytes, void** parameters) {
    auto run = [&] { call(kernel, parameters, std::index_sequence_for<A...>{}); };
    launch(grid, block, shared_bytes, {[](void* data) { (*static_cast<decltype(run)*>(data))(); }, &run});
}

inline void require_aligned(const void* pointer) {
    if (reinterpret_cast<u64>(pointer) & 15) fail("an access of 16 bytes is not aligned");
}

}  // namespace emulation

// The entry that a driver without a GPU calls.
#define EXPORT(name)                                                                                              \
    extern "C" void emu_##name(unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,      \
                               unsigned shared_bytes, void** parameters) {                                        \
        emulation::start(name, {gx, gy, gz}, {bx, by, bz}, shared_bytes, parameters);                             \
    }

inline void __syncthreads() { emulation::barrier(); }

inline float float_of(u32 bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline u32 bits_of(float value) {
    u32 bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

inline u16 bf16_bits(float value) {
    const u32 bits = bits_of(value);
    if (std::isnan(value)) return 0x7fff;
    return static_cast<u16>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline u32 bf16_pair(float first, float second) { return bf16_bits(first) | static_cast<u32>(bf16_bits(second)) << 16; }

inline float f16_value(u16 bits) {
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                                : std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
    if (exponent == 31) value = mantissa ? NAN : INFINITY;
    return bits & 0x8000 ? -value : value;
}

inline float exp2_fast(float x) { return std::exp2(x); }

inline float pick(bool first, float yes, float no) { return first ? yes : no; }

inline float shuffle_xor(float value, int mask) {
    emulation::Lane& mine = emulation::lane();
    mine.in[0] = bits_of(value);
    mine.in[1] = static_cast<u32>(mask);
    emulation::together(emulation::Collective::SHUFFLE_XOR);
    return float_of(mine.out[0]);
}

inline bool any_lane(bool holds) {
    emulation::Lane& mine = emulation::lane();
    mine.in[0] = holds;
    emulation::together(emulation::Collective::ANY);
    return mine.out[0] != 0;
}

// The sums travel in `in` as well: c[4], then a[4]; b through `out`, which is free until the operation is done.
inline void mma_bf16(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    emulation::Lane& mine = emulation::lane();
    for (int i = 0; i < 4; i++) mine.in[i] = bits_of(c[i]), mine.in[4 + i] = a[i];
    mine.out[0] = b0;
    mine.out[1] = b1;
    emulation::together(emulation::Collective::MMA_BF16);
    for (int i = 0; i < 4; i++) c[i] = float_of(mine.out[i]);
}

inline void ldmatrix(u32 (&r)[4], const void* row) {
    emulation::Lane& mine = emulation::lane();
    mine.address = row;
    emulation::together(emulation::Collective::LDMATRIX);
    for (int i = 0; i < 4; i++) r[i] = mine.out[i];
}

inline void ldmatrix_trans(u32 (&r)[4], const void* row) {
    emulation::Lane& mine = emulation::lane();
    mine.address = row;
    emulation::together(emulation::Collective::LDMATRIX_TRANS);
    for (int i = 0; i < 4; i++) r[i] = mine.out[i];
}

inline void copy_async(void* to, const void* from, bool inside) {
    emulation::require_aligned(to);
    if (inside) emulation::require_aligned(from);
    emulation::copy_start(to, from, inside);
}
inline void copy_commit() { emulation::copy_commit(); }
template <int LEFT>
void copy_wait() {
    emulation::copy_wait(LEFT);
}

inline uint4 load16(const void* from) {
    emulation::require_aligned(from);
    uint4 value;
    std::memcpy(&value, from, 16);
    return value;
}
inline void store16(void* to, uint4 value) {
    emulation::require_aligned(to);
    std::memcpy(to, &value, 16);
}
