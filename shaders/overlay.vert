#version 330 core
// Edges of octree nodes: one instance a cube, two vertices an edge. Positions are relative to the eye, so that a large
// world keeps its digits in float.

layout(location = 0) in vec4 cube;   // minimum corner relative to the eye, edge
layout(location = 1) in float level;

uniform mat4 clip;  // eye-relative world to clip space

out vec3 place;  // relative to the eye
flat out int shade;

void main() {
    int axis = gl_VertexID / 8, edge = gl_VertexID % 8 / 2;  // 3 axes x 4 parallel edges x 2 ends
    vec3 corner;
    corner[axis] = float(gl_VertexID & 1);
    corner[(axis + 1) % 3] = float(edge & 1);
    corner[(axis + 2) % 3] = float(edge >> 1);
    place = cube.xyz + corner * cube.w;
    shade = int(level);
    gl_Position = clip * vec4(place, 1.0);
}
