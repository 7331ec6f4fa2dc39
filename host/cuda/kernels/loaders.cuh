// How operands of a product reach shared memory: tiles of rows of 64 bytes (32 bf16 or 16 f32 of the depth), in chunks
// of 16 bytes that are swizzled so that neither a warp's writes nor its reads of eight rows meet in a bank.
#pragma once
#include "weights.cuh"

constexpr int TILE_ROW = 64;

// Where a chunk of a row lies in a tile.
DEVICE int tile_at(int row, int chunk) { return row * TILE_ROW + ((chunk ^ ((row >> 1) & 3)) << 4); }

// Which chunks a thread copies: the same chunk of every `THREADS / 4`-th row.
template <typename T, int ROWS, int THREADS>
struct Chunks {
    static constexpr int LENGTH = 16 / sizeof(T);
    static constexpr int DEPTH = TILE_ROW / sizeof(T);
    static constexpr int STEP = THREADS / 4;
    static constexpr int EACH = ROWS / STEP;
    static_assert(ROWS % STEP == 0, "every thread copies as many chunks");
    static_assert(STEP % 8 == 0, "the swizzle is the same for all rows of a thread");

    DEVICE static int chunk() { return static_cast<int>(threadIdx.x & 3); }
    DEVICE static int row(int e) { return static_cast<int>(threadIdx.x >> 2) + e * STEP; }
};

// Rows of a dense matrix, one after the other. With `ALIGNED`, rows start at multiples of 16 bytes and are whole
// chunks.
template <typename T, int ROWS, int THREADS, bool ALIGNED>
struct RowLoader {
    using At = Chunks<T, ROWS, THREADS>;

    const T* at[At::EACH];
    bool inside[At::EACH];
    int k, depth;

    DEVICE RowLoader(const T* values, u32 rows, u32 first, u32 depth) : k(At::chunk() * At::LENGTH), depth(depth) {
        UNROLL for (int e = 0; e < At::EACH; e++) {
            const u32 row = first + At::row(e);
            inside[e] = row < rows;
            at[e] = values + (inside[e] ? static_cast<u64>(row) * depth : 0);
        }
    }

    // Copies the next part of the depth.
    DEVICE void load(u8* tile) {
        UNROLL for (int e = 0; e < At::EACH; e++) {
            u8* to = tile + tile_at(At::row(e), At::chunk());
            const bool whole = inside[e] && k < depth;
            if (ALIGNED) {
                copy_async(to, whole ? at[e] + k : at[e], whole);
            } else {
                const int count = whole ? depth - k : 0;
#pragma unroll 1
                for (int i = 0; i < At::LENGTH; i++) {
                    narrow(i < count ? widen(at[e][k + i]) : 0.0f, reinterpret_cast<T*>(to)[i]);
                }
            }
        }
        k += At::DEPTH;
    }
};

// A convolution's input: `history ++ x` behind `front` frames of zeros, channels last.
struct Frames {
    const void* x;
    const void* history;
    i32 past, front, height, width, channels;
    i32 kernel[3], stride[3];
    i32 top, left;
    i32 out_height, out_width;
};

// One tap and a channel of it.
struct Tap {
    int channel, t, h, w;

    // Goes on by some channels, through as many taps as that takes.
    DEVICE void advance(const Frames& f, int channels) {
        channel += channels;
        while (channel >= f.channels) {
            channel -= f.channels;
            if (++w < f.kernel[2]) continue;
            w = 0;
            if (++h < f.kernel[1]) continue;
            h = 0;
            t++;
        }
    }
};

// Rows of the matrix that a convolution multiplies: a row is an output pixel, its depth runs over taps and then
// channels. Nothing of it exists in memory. With `ALIGNED`, the channels are whole chunks.
template <typename T, int ROWS, int THREADS, bool ALIGNED>
struct PixelLoader {
    using At = Chunks<T, ROWS, THREADS>;

    const Frames& frames;
    int t[At::EACH], h[At::EACH], w[At::EACH];
    bool inside[At::EACH];
    Tap tap;

    DEVICE PixelLoader(const Frames& frames, u32 pixels, u32 first) : frames(frames), tap{0, 0, 0, 0} {
        UNROLL for (int e = 0; e < At::EACH; e++) {
            const u32 pixel = first + At::row(e);
            inside[e] = pixel < pixels;
            const u32 line = pixel / frames.out_width, frame = line / frames.out_height;
            t[e] = static_cast<int>(frame) * frames.stride[0] - frames.front;
            h[e] = static_cast<int>(line % frames.out_height) * frames.stride[1] - frames.top;
            w[e] = static_cast<int>(pixel % frames.out_width) * frames.stride[2] - frames.left;
        }
        tap.advance(frames, At::chunk() * At::LENGTH);
    }

    // The pixel of a row under a tap, null where that is padding.
    DEVICE const T* pixel(int e, const Tap& at) const {
        const int frame = t[e] + at.t, row = h[e] + at.h, col = w[e] + at.w;
        const bool exists = inside[e] && at.t < frames.kernel[0] && frame >= 0 && row >= 0 && row < frames.height &&
                            col >= 0 && col < frames.width;
        if (!exists) return nullptr;
        const bool before = frame < frames.past;
        const T* from = static_cast<const T*>(before ? frames.history : frames.x);
        const u64 line = static_cast<u64>(before ? frame : frame - frames.past) * frames.height + row;
        return from + (line * frames.width + col) * frames.channels;
    }

    DEVICE void load(u8* tile) {
        UNROLL for (int e = 0; e < At::EACH; e++) {
            u8* to = tile + tile_at(At::row(e), At::chunk());
            if (ALIGNED) {
                const T* from = pixel(e, tap);
                copy_async(to, from ? from + tap.channel : static_cast<const T*>(frames.x), from != nullptr);
            } else {
                gather(e, reinterpret_cast<T*>(to));
            }
        }
        tap.advance(frames, At::DEPTH);
    }

    // A chunk whose channels may belong to several taps.
    DEVICE void gather(int e, T* to) const {
        Tap at = tap;
#pragma unroll 1
        for (int i = 0; i < At::LENGTH; i++) {
            const T* from = pixel(e, at);
            narrow(from ? widen(from[at.channel]) : 0.0f, to[i]);
            at.advance(frames, 1);
        }
    }
};
