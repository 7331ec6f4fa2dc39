// Products of rows with rows: `y = act(x w^T + bias)`, for linear layers and convolutions alike. bf16 runs on the
// tensor cores with f32 sums, f32 in fused multiply-adds. Operands pass through a ring of stages in shared memory, so
// that the copies of the next parts of the depth run under the arithmetic of this one.
#pragma once
#include "loaders.cuh"

struct Product {
    const void* w;
    void* y;
    Weight bias;
    // The bias of the first column, since a product may be a slice of a larger one's columns.
    u32 bias_first;
    u32 rows, cols, depth;
    // Values from one row of `y` to the next.
    u32 stride;
    u32 act;
};

// A block's share of the result. `N` and `M` are the warps (bf16) along each side.
template <int ROWS_, int COLS_, int M_, int N_>
struct Tile {
    static constexpr int ROWS = ROWS_, COLS = COLS_, M = M_, N = N_;
    static constexpr int THREADS = M * N * 32;
    static constexpr int STAGE = (ROWS + COLS) * TILE_ROW;
};

constexpr int STAGES = 3;
// Tiles of rows that are walked together along the columns, so that both operands stay in the second cache.
constexpr u32 BAND = 8;

struct Corner {
    u32 row, col;
};

// Which tile a block works on.
template <typename TILE>
DEVICE Corner corner_of(const Product& p) {
    const u32 high = (p.rows + TILE::ROWS - 1) / TILE::ROWS, wide = (p.cols + TILE::COLS - 1) / TILE::COLS;
    const u32 band = blockIdx.x / (BAND * wide), in_band = blockIdx.x % (BAND * wide);
    const u32 first = band * BAND;
    const u32 lines = high - first < BAND ? high - first : BAND;
    return {(first + in_band % lines) * TILE::ROWS, in_band / lines * TILE::COLS};
}

// Finishes a strip of sums that lies in shared memory, `PITCH` floats a row: bias, activation, one rounding, and
// accesses of 16 bytes. Row `s` of the strip is row `row_of(s)` of the tile.
template <typename T, typename TILE, int STRIP, typename F>
DEVICE void drain(const float* strip, const Product& p, const Corner& corner, F row_of) {
    constexpr int LENGTH = Run<T>::LENGTH, RUNS = TILE::COLS / LENGTH, PITCH = TILE::COLS + 8;
#pragma unroll 1
    for (int run = static_cast<int>(threadIdx.x); run < STRIP * RUNS; run += TILE::THREADS) {
        const int line = run / RUNS, at = run % RUNS * LENGTH;
        const u32 row = corner.row + row_of(line), col = corner.col + at;
        if (row >= p.rows || col >= p.cols) continue;
        const int count = p.cols - col < LENGTH ? static_cast<int>(p.cols - col) : LENGTH;
        float values[LENGTH];
        UNROLL for (int i = 0; i < LENGTH; i++) values[i] = strip[line * PITCH + at + i];
        add_plain(p.bias, p.bias_first + col, count, values);
        activate_run(p.act, values);
        T* y = static_cast<T*>(p.y) + static_cast<u64>(row) * p.stride + col;
        write_run(y, count == LENGTH && aligned16(y), count, values);
    }
}

// Runs `consume(stage)` over the depth while the loaders fill the stages behind it.
template <typename TILE, int DEPTH, typename A, typename B, typename F>
DEVICE void pipeline(u8* shared, u32 depth, A& a, B& b, F consume) {
    const int parts = static_cast<int>((depth + DEPTH - 1) / DEPTH);
    auto fill = [&](int part) {
        if (part < parts) {
            u8* stage = shared + part % STAGES * TILE::STAGE;
            a.load(stage);
            b.load(stage + TILE::ROWS * TILE_ROW);
        }
        copy_commit();
    };
#pragma unroll 1
    for (int part = 0; part < STAGES - 1; part++) fill(part);
    for (int part = 0; part < parts; part++) {
        copy_wait<STAGES - 2>();
        // All threads have this part's copies behind them, and are done with the stage that is filled next.
        __syncthreads();
        fill(part + STAGES - 1);
        const u8* stage = shared + part % STAGES * TILE::STAGE;
        consume(stage, stage + TILE::ROWS * TILE_ROW);
    }
}

// A warp's share of a tile of bf16 operands.
template <typename TILE>
struct WarpSums {
    static constexpr int HIGH = TILE::ROWS / TILE::M / 16, WIDE = TILE::COLS / TILE::N / 8;
    static_assert(WIDE % 2 == 0, "the columns are read sixteen at a time");
    float sums[HIGH][WIDE][4];
    int lane, row, col;

    DEVICE WarpSums() : lane(threadIdx.x & 31) {
        const int warp = threadIdx.x >> 5;
        row = warp / TILE::N * HIGH * 16;
        col = warp % TILE::N * WIDE * 8;
        UNROLL for (int i = 0; i < HIGH; i++) {
            UNROLL for (int j = 0; j < WIDE; j++) {
                UNROLL for (int e = 0; e < 4; e++) sums[i][j][e] = 0.0f;
            }
        }
    }

    DEVICE void add(const u8* a, const u8* b) {
        UNROLL for (int half = 0; half < 2; half++) {
            u32 left[HIGH][4], right[WIDE / 2][4];
            UNROLL for (int i = 0; i < HIGH; i++) {
                ldmatrix(left[i], a + tile_at(row + i * 16 + (lane & 15), half * 2 + (lane >> 4)));
            }
            UNROLL for (int j = 0; j < WIDE / 2; j++) {
                const int at = col + j * 16 + (lane & 7) + (lane >> 4) * 8;
                ldmatrix(right[j], b + tile_at(at, half * 2 + ((lane >> 3) & 1)));
            }
            UNROLL for (int i = 0; i < HIGH; i++) {
                UNROLL for (int j = 0; j < WIDE; j++) {
                    mma_bf16(sums[i][j], left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
                }
            }
        }
    }

    // Strip by strip, by way of shared memory.
    DEVICE void write(u8* shared, const Product& p, const Corner& corner) const {
        constexpr int STRIP = TILE::M * 16, PITCH = TILE::COLS + 8;
        float* strip = reinterpret_cast<float*>(shared);
        float* mine = strip + (row / (HIGH * 16) * 16 + lane / 4) * PITCH + col + lane % 4 * 2;
#pragma unroll 1
        for (int i = 0; i < HIGH; i++) {
            __syncthreads();
            // Registers have no run-time index, and draining is too long to be there once for each strip.
            UNROLL for (int j = 0; j < WIDE; j++) {
                UNROLL for (int e = 0; e < 4; e++) {
                    float sum = sums[0][j][e];
                    UNROLL for (int k = 1; k < HIGH; k++) sum = pick(k == i, sums[k][j][e], sum);
                    mine[e / 2 * 8 * PITCH + j * 8 + e % 2] = sum;
                }
            }
            __syncthreads();
            drain<bf16, TILE, STRIP>(strip, p, corner, [&](int s) { return s / 16 * HIGH * 16 + i * 16 + s % 16; });
        }
    }
};

// A thread's share of a tile of f32 operands: every sixteenth column, and as many rows apart.
template <typename TILE>
struct ThreadSums {
    static constexpr int ACROSS = 16, DOWN = TILE::THREADS / ACROSS;
    static constexpr int HIGH = TILE::ROWS / DOWN, WIDE = TILE::COLS / ACROSS;
    float sums[HIGH][WIDE];
    int row, col;

    DEVICE ThreadSums() : row(threadIdx.x / ACROSS), col(threadIdx.x % ACROSS) {
        UNROLL for (int i = 0; i < HIGH; i++) {
            UNROLL for (int j = 0; j < WIDE; j++) sums[i][j] = 0.0f;
        }
    }

    // Columns whose values are in registers at a time: with all of them, sums and operands would not fit.
    static constexpr int SOME = WIDE < 4 ? WIDE : 4;

    DEVICE void add(const u8* a, const u8* b) {
        UNROLL for (int chunk = 0; chunk < 4; chunk++) {
            UNROLL for (int first = 0; first < WIDE; first += SOME) add_some(a, b, chunk, first);
        }
    }

    DEVICE void add_some(const u8* a, const u8* b, int chunk, int first) {
        float right[SOME][4];
        UNROLL for (int j = 0; j < SOME; j++) {
            widen_run(load16(b + tile_at(col + (first + j) * ACROSS, chunk)), right[j]);
        }
        UNROLL for (int i = 0; i < HIGH; i++) {
            float left[4];
            widen_run(load16(a + tile_at(row + i * DOWN, chunk)), left);
            UNROLL for (int k = 0; k < 4; k++) {
                UNROLL for (int j = 0; j < SOME; j++) {
                    sums[i][first + j] = fmaf(left[k], right[j][k], sums[i][first + j]);
                }
            }
        }
    }

    // Strip by strip, as above.
    DEVICE void write(u8* shared, const Product& p, const Corner& corner) const {
        constexpr int PITCH = TILE::COLS + 8;
        float* strip = reinterpret_cast<float*>(shared);
#pragma unroll 1
        for (int i = 0; i < HIGH; i++) {
            __syncthreads();
            UNROLL for (int j = 0; j < WIDE; j++) {
                float sum = sums[0][j];
                UNROLL for (int k = 1; k < HIGH; k++) sum = pick(k == i, sums[k][j], sum);
                strip[row * PITCH + col + j * ACROSS] = sum;
            }
            __syncthreads();
            drain<float, TILE, DOWN>(strip, p, corner, [&](int s) { return i * DOWN + s; });
        }
    }
};

template <typename T, typename TILE>
struct SumsOf {
    using Type = WarpSums<TILE>;
};
template <typename TILE>
struct SumsOf<float, TILE> {
    using Type = ThreadSums<TILE>;
};

// One block's tile: `A` brings the rows, the weights are dense rows.
template <typename T, typename TILE, bool ALIGNED, typename A>
DEVICE void multiply(u8* shared, const Product& p, const Corner& corner, A& a) {
    RowLoader<T, TILE::COLS, TILE::THREADS, ALIGNED> b(static_cast<const T*>(p.w), p.cols, corner.col, p.depth);
    typename SumsOf<T, TILE>::Type sums;
    pipeline<TILE, TILE_ROW / sizeof(T)>(shared, p.depth, a, b, [&](const u8* x, const u8* w) { sums.add(x, w); });
    sums.write(shared, p, corner);
}

using Large = Tile<128, 128, 2, 4>;
// The large tile of f32, whose sums of 128 columns would not fit in the registers of two blocks.
using Tall = Tile<128, 64, 4, 2>;
using Small = Tile<64, 64, 2, 2>;
// For few columns, as the last convolution of a VAE has.
using Narrow = Tile<128, 32, 4, 1>;
