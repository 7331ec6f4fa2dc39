// Convolutions over frames, height and width as products whose left operand is gathered on its way to shared memory.
#include "products.cuh"

template <typename T, typename TILE, bool ALIGNED>
DEVICE void conv(u8* shared, const Frames& frames, const Product& p) {
    const Corner corner = corner_of<TILE>(p);
    PixelLoader<T, TILE::ROWS, TILE::THREADS, ALIGNED> pixels(frames, p.rows, corner.row);
    multiply<T, TILE, ALIGNED>(shared, p, corner, pixels);
}

#define CONV(name, T, TILE, ALIGNED)                                                  \
    KERNEL(name, TILE::THREADS, 2)(const Frames frames, const Product p) {            \
        SHARED(shared);                                                               \
        conv<T, TILE, ALIGNED>(shared, frames, p);                                    \
    }                                                                                 \
    EXPORT(name)

CONV(conv_bf16_large, bf16, Large, true)
CONV(conv_bf16_small, bf16, Small, true)
CONV(conv_bf16_narrow, bf16, Narrow, true)
CONV(conv_bf16_odd, bf16, Small, false)
CONV(conv_f32_large, float, Tall, true)
CONV(conv_f32_small, float, Small, true)
CONV(conv_f32_narrow, float, Narrow, true)
CONV(conv_f32_odd, float, Small, false)
