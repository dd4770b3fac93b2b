#version 330 core
// A wire is hidden where the scene is nearer: `depth` holds the distance along the ray, as the executors write it.

#define COLORS 1  // set by viewer/wires.py

in vec3 place;
flat in int shade;
out vec4 pixel;

uniform sampler2D depth;  // world units, 0 where there is nothing
uniform vec4 viewport;    // px: x, y, width, height
uniform vec3 colors[COLORS];
uniform float slack;      // world units: a wire on a surface is not behind it

void main() {
    vec2 uv = (gl_FragCoord.xy - viewport.xy) / viewport.zw;
    float surface = texture(depth, vec2(uv.x, 1.0 - uv.y)).r;
    float distance = length(place);
    if (surface > 0.0 && distance > surface * 1.01 + slack) discard;
    pixel = vec4(colors[min(shade, COLORS - 1)], 0.85);
}
