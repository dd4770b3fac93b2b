// Normals from the depth of the pixels around: a plane's inverse depth is affine in image coordinates, so a weighted least-squares
// fit of 1 / z over 5 x 5 pixels gives the plane that a pixel shows. Weights: bisquare of the distance to the plane of the pixel and its
// nearer neighbours, so that what lies behind an edge does not count. The field's own gradient speckles: a hash grid is rough below its cell. Twin: renderer/normals.py.
#pragma once
#include "scene.cuh"

namespace infnerf {

constexpr int NORMAL_RADIUS = 2;             // px
constexpr float NORMAL_TOLERANCE = 0.1f;     // of inverse depth, beyond which a neighbour shows something else
constexpr float NORMAL_MIN_ALPHA = 0.5f;     // below it a pixel shows no surface

// 1 / z of a pixel, 0 where it shows no surface or lies outside the region.
template <class P>
DEVICE typename P::F inverse_depth(const View &view, const Buffers &out, const int *region, typename P::I column, int row) {
    typedef typename P::F F;
    typedef typename P::I I;
    const F zero = all_f<P>(0.0f);
    if (row < region[1] || row >= region[3]) return zero;
    typename P::M inside = (column >= region[0]) & (column < region[2]);
    const I pixel = select(inside, column, all_i<P>(region[0])) + row * view.width;
    const F depth = gather(out.depth, pixel), alpha = gather(out.color, pixel * 4 + 3);
    inside = inside & (depth > 0.0f) & (alpha > NORMAL_MIN_ALPHA);
    const F x = (to_float(column) + 0.5f - view.cx) * (1.0f / view.fx);
    const float y = (row + 0.5f - view.cy) * (1.0f / view.fy);
    const F length = square_root(x * x + y * y + 1.0f);
    return select(inside, length / select(inside, depth, all_f<P>(1.0f)), zero);
}

// The slope of inverse depth (over `scale`) towards that of two neighbours which differs less: the other may be past an edge.
template <class P> DEVICE typename P::F smaller_slope(typename P::F before, typename P::F after, typename P::F scale) {
    typedef typename P::F F;
    const F far = all_f<P>(1e9f), zero = all_f<P>(0.0f);
    const F down = select(before > 0.0f, 1.0f - before * scale, far), up = select(after > 0.0f, after * scale - 1.0f, far);
    const F slope = select(larger<F>(up, -up) < larger<F>(down, -down), up, down);
    return select(slope < far, slope, zero);
}

// World normals [3] of a row's pixels, towards the camera; zero where they show no surface.
template <class P>
DEVICE void normal_at(const View &view, const Buffers &out, const int *region, typename P::I column, int row,
                      typename P::F *normal) {
    typedef typename P::F F;
    const F zero = all_f<P>(0.0f), one = all_f<P>(1.0f);
    const F center = inverse_depth<P>(view, out, region, column, row);
    const typename P::M seen = center > 0.0f;
    normal[0] = normal[1] = normal[2] = zero;
    if (!any(seen)) return;
    const F scale = 1.0f / select(seen, center, one);
    const F slope_x = smaller_slope<P>(inverse_depth<P>(view, out, region, column - 1, row),
                                       inverse_depth<P>(view, out, region, column + 1, row), scale);
    const F slope_y = smaller_slope<P>(inverse_depth<P>(view, out, region, column, row - 1),
                                       inverse_depth<P>(view, out, region, column, row + 1), scale);
    F n = zero, sx = zero, sy = zero, sxx = zero, sxy = zero, syy = zero, se = zero, sex = zero, sey = zero;
    NO_UNROLL
    for (int dy = -NORMAL_RADIUS; dy <= NORMAL_RADIUS; dy++) {
        NO_UNROLL
        for (int dx = -NORMAL_RADIUS; dx <= NORMAL_RADIUS; dx++) {
            const float x = (float)dx, y = (float)dy;
            const F inverse = inverse_depth<P>(view, out, region, column + dx, row + dy);
            const F e = inverse * scale - 1.0f;
            const F share = (e - slope_x * x - slope_y * y) * (1.0f / NORMAL_TOLERANCE);
            const F left = larger<F>(1.0f - share * share, zero), g = select(inverse > 0.0f, left * left, zero);
            n += g, sx += g * x, sy += g * y, sxx += g * (x * x), sxy += g * (x * y), syy += g * (y * y);
            se += g * e, sex += g * e * x, sey += g * e * y;
        }
    }
    const F share = 1.0f / larger<F>(n, all_f<P>(1e-6f));
    const F cxx = sxx - sx * sx * share + 1e-3f, cyy = syy - sy * sy * share + 1e-3f, cxy = sxy - sx * sy * share;
    const F cex = sex - se * sx * share, cey = sey - se * sy * share;
    const F over = 1.0f / (cxx * cyy - cxy * cxy);
    const F a = (cex * cyy - cey * cxy) * over * view.fx, b = (cey * cxx - cex * cxy) * over * view.fy;
    const F x = (to_float(column) + 0.5f - view.cx) * (1.0f / view.fx);
    const float y = (row + 0.5f - view.cy) * (1.0f / view.fy);
    const F c = 1.0f - a * x - b * y;
    const F unit = -1.0f / square_root(a * a + b * b + c * c);
    const float *axes = view.axes;
    for (int i = 0; i < 3; i++) normal[i] = select(seen, (a * axes[i] + b * axes[3 + i] + c * axes[6 + i]) * unit, zero);
}

template <class P>
DEVICE void write_normals(const View &view, const Buffers &out, const int *region, typename P::I column, int row) {
    typename P::F normal[3];
    normal_at<P>(view, out, region, column, row, normal);
    for (int l = 0; l < P::W; l++) {
        const int x = lane(column, l);
        if (x >= region[2]) continue;
        for (int i = 0; i < 3; i++) out.normal[3 * (row * view.width + x) + i] = lane(normal[i], l);
    }
}

}  // namespace infnerf
