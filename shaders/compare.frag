#version 330 core
// Two resolved pictures to a map of what is between them, on display values. The twin of `difference_map` and
// `error_map` in renderer/comparison.py, which puts the MODE_* and ROW_* numbers after the first line.

out vec4 pixel;

uniform sampler2D left;   // sRGB bytes, row 0 at the bottom
uniform sampler2D right;
uniform sampler2D known;  // [H, W] above 0 where the photograph has a pixel, row 0 at the top
uniform sampler2D lut;    // [rows, LUT_SIZE], linear colours

uniform int mode;
uniform bool masked;      // whether `known` counts
uniform float limit;      // display value 0..1 at the end of the colours
uniform vec4 viewport;    // px: x, y, width, height

vec3 encode(vec3 c) {
    c = clamp(c, 0.0, 1.0);
    return mix(1.055 * pow(c, vec3(1.0 / 2.4)) - 0.055, c * 12.92, lessThanEqual(c, vec3(0.0031308)));
}

vec3 lookup(int row, float position) {
    float at = clamp(position, 0.0, 1.0) * float(LUT_SIZE - 1);
    int low = min(int(at), LUT_SIZE - 2);
    return mix(texelFetch(lut, ivec2(low, row), 0).rgb, texelFetch(lut, ivec2(low + 1, row), 0).rgb, at - float(low));
}

vec3 value(sampler2D picture, vec2 p) {
    if (vec2(textureSize(picture, 0)) == viewport.zw) return texelFetch(picture, ivec2(p), 0).rgb;
    return texture(picture, p / viewport.zw).rgb;
}

void main() {
    vec2 p = gl_FragCoord.xy - viewport.xy;
    vec3 d = value(left, p) - value(right, p);
    vec3 linear;
    if (mode == MODE_DIFFERENCE) linear = lookup(ROW_DIVERGING, 0.5 + 0.5 * (d.r + d.g + d.b) / (3.0 * limit));
    else linear = lookup(ROW_SEQUENTIAL, (abs(d.r) + abs(d.g) + abs(d.b)) / (3.0 * limit));
    vec2 uv = vec2(p.x, viewport.w - p.y) / viewport.zw;
    if (masked && texture(known, uv).r <= 0.0) linear = UNKNOWN;
    pixel = vec4(encode(linear), 1.0);
}
