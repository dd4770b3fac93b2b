// Dense layers and spherical harmonics. Weights are input-major [in][out], then the bias [out]: scalar code vectorises over outputs, lanes
// broadcast. Twin: models/mlp.py.
#pragma once
#include "scene.cuh"

namespace infnerf {

template <class P, int BLOCK, bool RELU>
DEVICE void dense_block(const float *weights, const float *bias, const typename P::F *in, int n_in, int n_out,
                        typename P::F *out) {
    typedef typename P::F F;
    F sum[BLOCK];
    UNROLL for (int o = 0; o < BLOCK; o++) sum[o] = all_f<P>(bias[o]);
    NO_UNROLL
    for (int i = 0; i < n_in; i++) {
        const F x = in[i];
        const float *row = weights + i * n_out;
        UNROLL for (int o = 0; o < BLOCK; o++) sum[o] += x * row[o];
    }
    UNROLL for (int o = 0; o < BLOCK; o++) out[o] = RELU ? larger<F>(sum[o], all_f<P>(0.0f)) : sum[o];
}

// out = in @ weights + bias; eight outputs at a time fill the multiply-add units
template <class P, bool RELU>
DEVICE void dense(const float *weights, int n_in, int n_out, const typename P::F *in, typename P::F *out) {
    const float *bias = weights + n_in * n_out;
    int o = 0;
    NO_UNROLL
    for (; o + 8 <= n_out; o += 8) dense_block<P, 8, RELU>(weights + o, bias + o, in, n_in, n_out, out + o);
    NO_UNROLL
    for (; o < n_out; o++) dense_block<P, 1, RELU>(weights + o, bias + o, in, n_in, n_out, out + o);
}

template <class P, int BLOCK>
DEVICE void dense_backward_input_block(const float *weights, int n_out, const typename P::F *d_out, typename P::F *d_in) {
    typename P::F sum[BLOCK];
    UNROLL for (int i = 0; i < BLOCK; i++) sum[i] = all_f<P>(0.0f);
    NO_UNROLL
    for (int o = 0; o < n_out; o++) {
        const typename P::F d = d_out[o];
        UNROLL for (int i = 0; i < BLOCK; i++) sum[i] += d * weights[i * n_out + o];
    }
    UNROLL for (int i = 0; i < BLOCK; i++) d_in[i] = sum[i];
}

// d_in = weights @ d_out, for the first n_in inputs
template <class P>
DEVICE void dense_backward_input(const float *weights, int n_in, int n_out, const typename P::F *d_out,
                                 typename P::F *d_in) {
    int i = 0;
    NO_UNROLL
    for (; i + 8 <= n_in; i += 8) dense_backward_input_block<P, 8>(weights + i * n_out, n_out, d_out, d_in + i);
    NO_UNROLL
    for (; i < n_in; i++) dense_backward_input_block<P, 1>(weights + i * n_out, n_out, d_out, d_in + i);
}

// d_weights += outer(in, d_out), d_bias += d_out, kept per lane; the caller sums the lanes. BATCH packets at once, `stride`
// apart, and two rows at a time: the sums are more than the first cache holds, so each is fetched once for eight multiply-adds.
template <class P, int BATCH>
DEVICE void dense_backward_weights(int n_in, int n_out, const typename P::F *in, const typename P::F *d_out,
                                   int stride, typename P::F *d_weights) {
    typedef typename P::F F;
    int i = 0;
    NO_UNROLL
    for (; i + 2 <= n_in; i += 2) {
        F *row = d_weights + i * n_out, x[BATCH], y[BATCH];
        UNROLL for (int b = 0; b < BATCH; b++) x[b] = in[b * stride + i], y[b] = in[b * stride + i + 1];
        NO_UNROLL
        for (int o = 0; o < n_out; o++) {
            F first = row[o], second = row[n_out + o];
            UNROLL for (int b = 0; b < BATCH; b++) {
                const F d = d_out[b * stride + o];
                first += x[b] * d;
                second += y[b] * d;
            }
            row[o] = first, row[n_out + o] = second;
        }
    }
    for (; i < n_in; i++)
        for (int b = 0; b < BATCH; b++)
            for (int o = 0; o < n_out; o++) d_weights[i * n_out + o] += in[b * stride + i] * d_out[b * stride + o];
    for (int b = 0; b < BATCH; b++)
        for (int o = 0; o < n_out; o++) d_weights[n_in * n_out + o] += d_out[b * stride + o];
}

// Real spherical harmonics of a unit direction, bands 0 .. degree - 1 (Sloan 2013). Twin: models/mlp.py.
template <class P>
DEVICE void spherical_harmonics(int degree, typename P::F x, typename P::F y, typename P::F z, typename P::F *sh) {
    typedef typename P::F F;
    sh[0] = all_f<P>(0.28209479177387814f);
    if (degree < 2) return;
    sh[1] = -0.48860251190291987f * y;
    sh[2] = 0.48860251190291987f * z;
    sh[3] = -0.48860251190291987f * x;
    if (degree < 3) return;
    const F xy = x * y, yz = y * z, xz = x * z, x2 = x * x, y2 = y * y, z2 = z * z;
    sh[4] = 1.0925484305920792f * xy;
    sh[5] = -1.0925484305920792f * yz;
    sh[6] = 0.94617469575755997f * z2 - 0.31539156525251999f;
    sh[7] = -1.0925484305920792f * xz;
    sh[8] = 0.54627421529603959f * (x2 - y2);
    if (degree < 4) return;
    sh[9] = 0.59004358992664352f * y * (-3.0f * x2 + y2);
    sh[10] = 2.8906114426405538f * xy * z;
    sh[11] = 0.45704579946446572f * y * (1.0f - 5.0f * z2);
    sh[12] = 0.3731763325901154f * z * (5.0f * z2 - 3.0f);
    sh[13] = 0.45704579946446572f * x * (1.0f - 5.0f * z2);
    sh[14] = 1.4453057213202769f * z * (x2 - y2);
    sh[15] = 0.59004358992664352f * x * (-x2 + 3.0f * y2);
}

}  // namespace infnerf
