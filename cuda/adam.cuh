// Adam (Kingma & Ba 2015, algorithm 1) on the rows of those nodes that a batch touched. Twin: training/optimizer.py.
#pragma once
#include "packet.cuh"

namespace infnerf {

struct AdamRows {             // [n_nodes, row_size] each; gradient is cleared on the way
    float *value, *gradient, *mean, *square;
    int row_size, block;      // a row is made of blocks, of which a node may use no more than the beginning
    float decay_mean, decay_square, epsilon;
};

// rate: learning rate / (1 - decay_mean**steps); root: 1 / sqrt(1 - decay_square**steps), of this row's own steps
template <class P> DEVICE void adam_values(const AdamRows &a, u64 at, float rate, float root) {
    typename P::F value, gradient, mean, square;
    load(value, a.value + at), load(gradient, a.gradient + at), load(mean, a.mean + at), load(square, a.square + at);
    mean = mean * a.decay_mean + gradient * (1.0f - a.decay_mean);
    square = square * a.decay_square + gradient * gradient * (1.0f - a.decay_square);
    store(a.value + at, value - mean * rate / (square_root(square) * root + a.epsilon));
    store(a.gradient + at, all_f<P>(0.0f)), store(a.mean + at, mean), store(a.square + at, square);
}

// used: numbers of each block, from its beginning; the others rest (models/capacity.py).
template <class P> DEVICE void adam_row(const AdamRows &a, int row, float rate, float root, int used) {
    const u64 end = (u64)(row + 1) * a.row_size;
    for (u64 first = (u64)row * a.row_size; first < end; first += a.block) {
        int i = 0;
        for (; i + P::W <= used; i += P::W) adam_values<P>(a, first + i, rate, root);
        for (; i < used; i++) adam_values<One>(a, first + i, rate, root);
    }
}

}  // namespace infnerf
