// What both kinds of attention share: operands, and which scores count. Scores are never in device memory; every block
// of queries walks over the keys with the running maximum and sum of each query's softmax (arXiv:1805.02867).
#pragma once
#include "numbers.cuh"

// `o = softmax(scale * q k^T + bias) v` for each head; `q` and `o` are [queries, heads, dim], `k` and `v` [keys, heads,
// dim].
struct Attention {
    const void* q;
    const void* k;
    const void* v;
    void* o;
    // f32 [heads, queries + keys - 1], for a query and a key at `key - query + queries - 1`; null for none.
    const float* table;
    u32 queries, keys, heads, dim;
    // How many keys are seen at all, and whether query i sees only those up to `i + keys - queries`.
    u32 visible, causal;
    float scale;
};

// Finite, so that a score of minus infinity never meets its equal.
constexpr float LOWEST = -3.402823466e38f;
constexpr float LOG2_E = 1.44269504f;

// How many keys a query sees.
DEVICE u32 seen_by(const Attention& a, u32 query) {
    const u32 limit = query + a.keys - a.queries + 1;
    return a.causal && limit < a.visible ? limit : a.visible;
}

// The bias of a head's query and key. Rows of a tile beyond the last query have one as well: what they read is in the
// table, and nobody reads what becomes of it.
DEVICE float bias_of(const Attention& a, u32 head, u32 query, u32 key) {
    const u32 last = query < a.queries ? query : a.queries - 1;
    const u64 row = static_cast<u64>(head) * (a.queries + a.keys - 1);
    return a.table[row + key + a.queries - 1 - last];
}
