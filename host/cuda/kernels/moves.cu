// Copies between places of tensors: slices, concatenations, permutations, repetitions. Each is a walk over axes with a
// stride on either side, in units of as many bytes as all strides allow.
#include "numbers.cuh"

constexpr int BLOCK = 256;
constexpr int AXES = 8;

struct Walk {
    const void* from;
    void* to;
    u64 units;
    // The axes, fastest last; those that are not used come first and have one unit.
    u32 sizes[AXES];
    u64 from_strides[AXES], to_strides[AXES];
};

template <typename T>
DEVICE void move(const Walk& p) {
    const u64 step = static_cast<u64>(gridDim.x) * BLOCK;
    for (u64 i = static_cast<u64>(blockIdx.x) * BLOCK + threadIdx.x; i < p.units; i += step) {
        u64 rest = i, from = 0, to = 0;
        UNROLL for (int axis = AXES - 1; axis >= 0; axis--) {
            const u32 size = p.sizes[axis];
            if (size == 1) continue;
            // Most tensors have fewer than 2^32 units, and the shorter division is several times as fast.
            const u32 index = static_cast<u32>(rest >> 32 ? rest % size : static_cast<u32>(rest) % size);
            rest = rest >> 32 ? rest / size : static_cast<u32>(rest) / size;
            from += index * p.from_strides[axis];
            to += index * p.to_strides[axis];
        }
        static_cast<T*>(p.to)[to] = static_cast<const T*>(p.from)[from];
    }
}

KERNEL(move_2, BLOCK, 4)(const Walk p) { move<u16>(p); }
EXPORT(move_2)
KERNEL(move_4, BLOCK, 4)(const Walk p) { move<u32>(p); }
EXPORT(move_4)
KERNEL(move_8, BLOCK, 4)(const Walk p) { move<u64>(p); }
EXPORT(move_8)
KERNEL(move_16, BLOCK, 4)(const Walk p) { move<uint4>(p); }
EXPORT(move_16)
