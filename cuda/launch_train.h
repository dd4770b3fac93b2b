// CPU only: the kernels of train.cu by name, as launch.h runs those of a frame.
#pragma once
#include "train.cuh"

namespace infnerf {

static inline bool same_name(const char *a, const char *b) {
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}

// Calls run(block) for a grid's blocks, one after the other. backwards: the last block first.
template <class Run> static inline int each_block(int n, int backwards, Run run) {
    for (int b = 0; b < n; b++) run(backwards ? n - 1 - b : b);
    return 1;
}

#define ARGUMENT(TYPE, i) (*(TYPE *)args[i])

// As launch_by_name (launch.h).
static inline int launch_training(const char *name, const int *shape, void **args, int backwards) {
    const int n = shape[0];
    if (same_name(name, "train_march_count"))
        return each_block(n, backwards, [&](int b) {
            train_march_block(ARGUMENT(const Scene, 0), ARGUMENT(const Rays, 1), ARGUMENT(int, 2), ARGUMENT(int *, 3), nullptr, nullptr, b);
        });
    if (same_name(name, "train_march"))
        return each_block(n, backwards, [&](int b) {
            train_march_block(ARGUMENT(const Scene, 0), ARGUMENT(const Rays, 1), ARGUMENT(int, 2), ARGUMENT(int *, 3),
                              ARGUMENT(const int *, 4), &ARGUMENT(const Packed, 5), b);
        });
    if (same_name(name, "train_field"))
        return each_block(n, backwards, [&](int b) {
            train_field_block(ARGUMENT(const Scene, 0), ARGUMENT(const FieldSamples, 1), ARGUMENT(const int *, 2), ARGUMENT(int, 3), b);
        });
    if (same_name(name, "train_field_backward"))
        return each_block(n, backwards, [&](int b) {
            train_field_backward_block(ARGUMENT(const Scene, 0), ARGUMENT(const FieldSamples, 1), ARGUMENT(const int *, 2), ARGUMENT(int, 3),
                                       ARGUMENT(int, 4), ARGUMENT(float *, 5), b);
        });
    if (same_name(name, "train_weight_gradients"))
        return each_block(n, backwards, [&](int b) {
            train_weight_gradients_block(ARGUMENT(const Scene, 0), ARGUMENT(const FieldSamples, 1), ARGUMENT(const int *, 2),
                                         ARGUMENT(int, 3), ARGUMENT(int, 4), ARGUMENT(const float *, 5), b);
        });
    if (same_name(name, "train_composite"))
        return each_block(n, backwards, [&](int b) {
            train_composite_block(ARGUMENT(const Segments, 0), ARGUMENT(int, 1), ARGUMENT(float *, 2), b);
        });
    if (same_name(name, "train_composite_backward"))
        return each_block(n, backwards, [&](int b) {
            train_composite_backward_block(ARGUMENT(const Segments, 0), ARGUMENT(int, 1), ARGUMENT(const float *, 2),
                                           ARGUMENT(const float *, 3), ARGUMENT(float *, 4), ARGUMENT(float *, 5), b);
        });
    if (same_name(name, "train_adam"))
        return each_block(n, backwards, [&](int b) {
            for (int y = 0; y < shape[1]; y++)
                for (int row = y; row < ARGUMENT(int, 5); row += shape[1])
                    train_adam_block(ARGUMENT(const AdamRows, 0), ARGUMENT(const int *, 1), ARGUMENT(const float *, 2),
                                     ARGUMENT(const float *, 3), ARGUMENT(const int *, 4), row, b, n);
        });
    return 0;
}

#undef ARGUMENT

}  // namespace infnerf
