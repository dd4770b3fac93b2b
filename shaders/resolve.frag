#version 330 core
// Buffers to pixels: view modes, exposure, background and the one encoding to sRGB. The twin of `resolve` in
// renderer/resolve.py, which puts the MODE_* and ROW_* numbers after the first line, so that both share them.

in vec2 uv;
out vec4 pixel;

uniform sampler2D color;      // [H, W] rgba, linear, premultiplied
uniform sampler2D depth;      // world units
uniform sampler2D normal;     // rgb: world, unit or zero
uniform sampler2D level;
uniform sampler2D gsd_ratio;  // log2
uniform sampler2D samples;
uniform sampler2D clamped;    // 0..1
uniform isampler2D node;
uniform sampler2D lut;        // [rows, LUT_SIZE], linear colours

uniform int mode;
uniform vec3 background;      // linear
uniform float gain;           // 2**exposure
uniform float tint;           // 1: the heat colour alone, 0: rgb alone
uniform vec2 range;           // of the mode's number, low and high; depth as log2
uniform vec3 clamped_color;   // linear
uniform bool srgb_input;      // the colours were trained on encoded images

vec3 decode(vec3 c) {
    c = clamp(c, 0.0, 1.0);
    return mix(pow((c + 0.055) / 1.055, vec3(2.4)), c / 12.92, lessThanEqual(c, vec3(0.04045)));
}

vec3 encode(vec3 c) {
    c = clamp(c, 0.0, 1.0);
    return mix(1.055 * pow(c, vec3(1.0 / 2.4)) - 0.055, c * 12.92, lessThanEqual(c, vec3(0.0031308)));
}

vec3 lookup(int row, float position) {
    float at = clamp(position, 0.0, 1.0) * float(LUT_SIZE - 1);
    int low = min(int(at), LUT_SIZE - 2);
    return mix(texelFetch(lut, ivec2(low, row), 0).rgb, texelFetch(lut, ivec2(low + 1, row), 0).rgb, at - float(low));
}

vec3 radiance(vec4 c, float alpha) {
    vec3 linear = srgb_input ? decode(c.rgb / max(alpha, 1e-6)) * alpha : c.rgb;
    return linear * gain + (1.0 - alpha) * background;
}

vec3 hue(int number) {
    uint h = uint(number) * 2654435761u;
    h = (h ^ (h >> 15)) * 2246822519u;
    h ^= h >> 13;
    return texelFetch(lut, ivec2(int(h % uint(LUT_SIZE)), ROW_HUES), 0).rgb;
}

float position(float value) {
    return (value - range.x) / (range.y - range.x);
}

// The mode's colour of one pixel of the buffers, linear, over the background.
vec3 shade(ivec2 p) {
    vec4 c = texelFetch(color, p, 0);
    float alpha = clamp(c.a, 0.0, 1.0);
    if (mode == MODE_RGB) return radiance(c, alpha);
    if (mode == MODE_ALPHA) return decode(vec3(alpha));
    if (mode == MODE_SAMPLES) return lookup(ROW_SEQUENTIAL, position(texelFetch(samples, p, 0).r));
    vec3 heat;
    if (mode == MODE_DEPTH) {
        heat = lookup(ROW_SEQUENTIAL, 1.0 - position(log2(max(texelFetch(depth, p, 0).r, 1e-6))));
    } else if (mode == MODE_NORMAL) {
        heat = decode(texelFetch(normal, p, 0).rgb * 0.5 + 0.5);
    } else if (mode == MODE_NODE) {
        int number = texelFetch(node, p, 0).r;
        if (number < 0) return background;
        heat = hue(number);
    } else {
        heat = mode == MODE_LEVEL ? lookup(ROW_LEVELS, texelFetch(level, p, 0).r / float(LUT_SIZE - 1))
                                  : lookup(ROW_DIVERGING, position(texelFetch(gsd_ratio, p, 0).r));
        heat = mix(heat, clamped_color, clamp(texelFetch(clamped, p, 0).r, 0.0, 1.0));
    }
    heat = heat * alpha + (1.0 - alpha) * background;
    return mode == MODE_LEVEL || mode == MODE_GSD ? mix(radiance(c, alpha), heat, tint) : heat;
}

void main() {
    ivec2 size = textureSize(color, 0);
    vec2 at = uv * vec2(size) - 0.5;
    vec2 low = floor(at + SNAP);  // a picture of the viewport's own size meets its pixels exactly
    vec2 share = at - low;
    share = mix(share, vec2(0.0), lessThan(share, vec2(SNAP)));
    ivec2 p = clamp(ivec2(low), ivec2(0), size - 1), q = clamp(ivec2(low) + 1, ivec2(0), size - 1);
    vec3 linear = shade(p);
    if (share != vec2(0.0)) {  // a coarse picture of a moving view
        vec3 top = mix(linear, shade(ivec2(q.x, p.y)), share.x);
        vec3 bottom = mix(shade(ivec2(p.x, q.y)), shade(q), share.x);
        linear = mix(top, bottom, share.y);
    }
    pixel = vec4(encode(linear), 1.0);
}
