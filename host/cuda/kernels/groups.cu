// Group norm of positions x channels: one mean and variance for each group of neighbouring channels. Positions are cut
// into pieces; each gives its groups' sums and squared deviations, which are joined in order (Chan, Golub and LeVeque
// 1979), so that a large mean does not swamp a small variance and the order of blocks changes nothing.
#include "weights.cuh"

struct Pieces {
    const void* x;
    // f32 [pieces, 2, groups]: sums, then squared deviations from the piece's mean.
    float* stats;
    u32 positions, channels, groups;
    // Positions of a piece.
    u32 piece;
};

constexpr int BLOCK = 256;

// Sums of one group of a piece; `shared` has a float for each thread. The groups of a piece follow each other along x,
// as they share what the second cache holds.
template <typename T>
DEVICE void measure(float* shared, const Pieces& p) {
    const u32 width = p.channels / p.groups, group = blockIdx.x, first = blockIdx.y * p.piece;
    const u32 count = p.positions - first < p.piece ? p.positions - first : p.piece;
    const T* x = static_cast<const T*>(p.x) + static_cast<u64>(first) * p.channels + static_cast<u64>(group) * width;
    const u32 values = count * width;
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < values; i += BLOCK) {
        sum += widen(x[static_cast<u64>(i / width) * p.channels + i % width]);
    }
    // Both rounds of the tree read what other threads wrote.
    auto total = [&](float value) {
        shared[threadIdx.x] = value;
        __syncthreads();
        for (int half = BLOCK / 2; half > 0; half /= 2) {
            if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
            __syncthreads();
        }
        const float all = shared[0];
        __syncthreads();
        return all;
    };
    const float whole = total(sum), mean = whole / static_cast<float>(values);
    float squares = 0.0f;
    for (u32 i = threadIdx.x; i < values; i += BLOCK) {
        const float deviation = widen(x[static_cast<u64>(i / width) * p.channels + i % width]) - mean;
        squares = fmaf(deviation, deviation, squares);
    }
    squares = total(squares);
    if (threadIdx.x == 0) {
        float* stats = p.stats + static_cast<u64>(blockIdx.y) * 2 * p.groups + group;
        stats[0] = whole;
        stats[p.groups] = squares;
    }
}

KERNEL(group_measure_bf16, BLOCK, 4)(const Pieces p) {
    SHARED(shared);
    measure<bf16>(reinterpret_cast<float*>(shared), p);
}
EXPORT(group_measure_bf16)
KERNEL(group_measure_f32, BLOCK, 4)(const Pieces p) {
    SHARED(shared);
    measure<float>(reinterpret_cast<float*>(shared), p);
}
EXPORT(group_measure_f32)

struct Join {
    const float* stats;
    Weight weight, bias;
    // f32 [2, channels]: each channel's factor, then its summand.
    float* affine;
    u32 positions, channels, groups, piece, pieces;
    float eps;
};

// A thread joins the pieces of one channel's group, in f64 as their number may be large.
KERNEL(group_join, 128, 1)(const Join p) {
    const u32 channel = blockIdx.x * 128 + threadIdx.x;
    if (channel >= p.channels) return;
    const u32 width = p.channels / p.groups, group = channel / width;
    double count = 0.0, mean = 0.0, squares = 0.0;
    for (u32 i = 0; i < p.pieces; i++) {
        const float* stats = p.stats + static_cast<u64>(i) * 2 * p.groups + group;
        const u32 first = i * p.piece, positions = p.positions - first < p.piece ? p.positions - first : p.piece;
        const double more = static_cast<double>(positions) * width;
        const double delta = stats[0] / more - mean, total = count + more;
        mean += delta * more / total;
        squares += stats[p.groups] + delta * delta * count * more / total;
        count = total;
    }
    const float weight = p.weight.type == W_NONE ? 1.0f : plain_value(p.weight, channel);
    const float factor = static_cast<float>(1.0 / sqrt(squares / count + p.eps)) * weight;
    float summand[1] = {static_cast<float>(-mean * factor)};
    add_plain(p.bias, channel, 1, summand);
    p.affine[channel] = factor;
    p.affine[p.channels + channel] = summand[0];
}
EXPORT(group_join)

// A grid that is stretched over positions by taking the nearest; null operands for none.
struct Grid {
    const void* scale;
    const void* shift;
    u32 frames, height, width;
};

struct Apply {
    const void* x;
    void* y;
    const float* affine;
    Grid grid;
    u32 frames, height, width, channels;
    u32 silu;
    // Whether channels are whole runs and all operands aligned.
    u32 aligned;
};

// The grid's frame: where `x` has an odd number of frames above one, its first reads the grid's first, and the others
// the rest of the grid.
DEVICE u32 grid_frame(const Apply& p, u32 frame) {
    if (p.frames == 1 || p.frames % 2 == 0 || p.grid.frames == 1) {
        return static_cast<u32>(static_cast<u64>(frame) * p.grid.frames / p.frames);
    }
    return frame == 0 ? 0 : 1 + static_cast<u32>(static_cast<u64>(frame - 1) * (p.grid.frames - 1) / (p.frames - 1));
}

DEVICE u64 grid_position(const Apply& p, u64 position) {
    const u32 col = static_cast<u32>(position % p.width), row = static_cast<u32>(position / p.width % p.height);
    const u32 frame = grid_frame(p, static_cast<u32>(position / p.width / p.height));
    const u32 line = static_cast<u32>(static_cast<u64>(row) * p.grid.height / p.height);
    const u32 place = static_cast<u32>(static_cast<u64>(col) * p.grid.width / p.width);
    return (static_cast<u64>(frame) * p.grid.height + line) * p.grid.width + place;
}

// `y = silu?((x * factor + summand) * scale + shift)`, a run of channels at a time.
template <typename T>
DEVICE void apply(const Apply& p) {
    constexpr u32 LENGTH = Run<T>::LENGTH;
    const u32 runs = (p.channels + LENGTH - 1) / LENGTH;
    const u64 positions = static_cast<u64>(p.frames) * p.height * p.width;
    const u64 all = positions * runs, step = static_cast<u64>(gridDim.x) * BLOCK;
    for (u64 i = static_cast<u64>(blockIdx.x) * BLOCK + threadIdx.x; i < all; i += step) {
        // The shorter division is several times as fast, and serves most tensors.
        const u64 position = i >> 32 ? i / runs : static_cast<u32>(i) / runs;
        const u32 channel = static_cast<u32>(i - position * runs) * LENGTH;
        const int count = p.channels - channel < LENGTH ? static_cast<int>(p.channels - channel) : LENGTH;
        const u64 at = position * p.channels + channel;
        float values[LENGTH];
        read_run(static_cast<const T*>(p.x) + at, p.aligned, count, values);
        const float* affine = p.affine + channel;
        float factors[LENGTH], summands[LENGTH];
        read_floats(affine, aligned16(affine), count, factors);
        read_floats(affine + p.channels, aligned16(affine + p.channels), count, summands);
        UNROLL for (u32 j = 0; j < LENGTH; j++) values[j] = fmaf(values[j], factors[j], summands[j]);
        if (p.grid.scale != nullptr) {
            const u64 from = grid_position(p, position) * p.channels + channel;
            float scale[LENGTH], shift[LENGTH];
            read_run(static_cast<const T*>(p.grid.scale) + from, p.aligned, count, scale);
            read_run(static_cast<const T*>(p.grid.shift) + from, p.aligned, count, shift);
            UNROLL for (u32 j = 0; j < LENGTH; j++) values[j] = fmaf(values[j], scale[j], shift[j]);
        }
        activate_run(p.silu ? ACT_SILU : ACT_NONE, values);
        write_run(static_cast<T*>(p.y) + at, p.aligned, count, values);
    }
}

KERNEL(group_apply_bf16, BLOCK, 4)(const Apply p) { apply<bf16>(p); }
EXPORT(group_apply_bf16)
KERNEL(group_apply_f32, BLOCK, 4)(const Apply p) { apply<float>(p); }
EXPORT(group_apply_f32)
