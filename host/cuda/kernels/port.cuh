// What device code needs from its compiler. nvcc compiles the kernels for a GPU; g++ compiles the same files with
// `emulation/device.h`, which runs a block's threads one by one, so that a machine without a GPU proves what they
// compute.
//
// Rules that keep both worlds equal: all shared memory is dynamic (`SHARED`), every collective is called by whole
// warps, and inline PTX appears only in this file.
#pragma once

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;

#if defined(__CUDACC__)

#define DEVICE __device__ __forceinline__
#define KERNEL(name, threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks) name
#define EXPORT(name)
#define SHARED(name) extern __shared__ __align__(128) u8 name[]
#define UNROLL _Pragma("unroll")

DEVICE u32 shared_address(const void* pointer) { return static_cast<u32>(__cvta_generic_to_shared(pointer)); }

// The upper half of a float, rounded to nearest even.
DEVICE u16 bf16_bits(float value) {
    u16 bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

// Two rounded values in one word, the first in the lower half.
DEVICE u32 bf16_pair(float first, float second) {
    u32 word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
    return word;
}

DEVICE float f16_value(u16 bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

DEVICE float float_of(u32 bits) { return __uint_as_float(bits); }

// 2^x, within two units of the last place.
DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// c += a b for a[16, 16] and b[16, 8] of bf16, spread over the warp as the PTX manual has it for mma.m16n8k16.
DEVICE void mma_bf16(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8x8 matrices of 16-bit values; lane l gives the address of row l % 8 of matrix l / 8.
DEVICE void ldmatrix(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// The same, each matrix transposed on its way.
DEVICE void ldmatrix_trans(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// Starts a copy of 16 bytes into shared memory; with `inside` false nothing is read and zeros are written.
DEVICE void copy_async(void* to, const void* from, bool inside) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(shared_address(to)), "l"(__cvta_generic_to_global(from)), "r"(inside ? 16u : 0u)
                 : "memory");
}

// Closes the group of the copies that this thread has started since the last one.
DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most the newest `LEFT` of this thread's groups are under way.
template <int LEFT>
DEVICE void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

// One of two values. A plain conditional over an array's elements becomes a run-time index, and the array then lives in
// local memory.
DEVICE float pick(bool first, float yes, float no) {
    float value;
    asm("{ .reg .pred p; setp.ne.u32 p, %3, 0; selp.f32 %0, %1, %2, p; }"
        : "=f"(value)
        : "f"(yes), "f"(no), "r"(static_cast<u32>(first)));
    return value;
}

DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
DEVICE bool any_lane(bool holds) { return __any_sync(0xffffffffu, holds); }

DEVICE uint4 load16(const void* from) { return *static_cast<const uint4*>(from); }
DEVICE void store16(void* to, uint4 value) { *static_cast<uint4*>(to) = value; }

#else

#include "emulation/device.h"

#endif
