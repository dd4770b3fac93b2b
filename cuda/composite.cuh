// Compositing of packed samples and its gradient, one ray at a time (Max 1995; NeRF eq. 3). Twin: models/volume.py.
//   w_i = T_i (1 - exp(-sigma_i dt_i)),  T_{i+1} = T_i exp(-sigma_i dt_i),  rgba = sum w_i (rgb_i, 1)
// A sample that less than min_transmittance reaches counts nothing and gets no gradient.
#pragma once
#include "packet.cuh"

namespace infnerf {

struct Segments {
    const int *starts;        // [n_rays + 1] first sample of each ray
    const float *sigma, *dt;  // [n_samples]
    const float *rgb;         // [n_samples, 3]
    float min_transmittance;
};

DEVICE void composite_ray(const Segments &s, int ray, float *rgba) {
    float transmittance = 1.0f, sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int i = s.starts[ray]; i < s.starts[ray + 1] && transmittance >= s.min_transmittance; i++) {
        const float through = exp_of<One>(-s.sigma[i] * s.dt[i]), weight = transmittance * (1.0f - through);
        for (int c = 0; c < 3; c++) sum[c] += weight * s.rgb[3 * i + c];
        sum[3] += weight;
        transmittance *= through;
    }
    for (int c = 0; c < 4; c++) rgba[c] = sum[c];
}

// d_sigma_i = dt_i (T_{i+1} g_i - sum_{j > i} w_j g_j), g = (rgb, 1) . d_rgba; the sum behind i is the whole less what has passed.
DEVICE void composite_ray_backward(const Segments &s, int ray, const float *rgba, const float *d_rgba, float *d_sigma,
                                   float *d_rgb) {
    float transmittance = 1.0f, behind = 0.0f;
    for (int c = 0; c < 4; c++) behind += rgba[c] * d_rgba[c];
    for (int i = s.starts[ray]; i < s.starts[ray + 1]; i++) {
        const bool counts = transmittance >= s.min_transmittance;
        const float through = exp_of<One>(-s.sigma[i] * s.dt[i]);
        const float weight = counts ? transmittance * (1.0f - through) : 0.0f;
        float g = d_rgba[3];
        for (int c = 0; c < 3; c++) {
            g += s.rgb[3 * i + c] * d_rgba[c];
            d_rgb[3 * i + c] = weight * d_rgba[c];
        }
        behind -= weight * g;
        if (counts) transmittance *= through;
        d_sigma[i] = counts ? s.dt[i] * (transmittance * g - behind) : 0.0f;
    }
}

}  // namespace infnerf
