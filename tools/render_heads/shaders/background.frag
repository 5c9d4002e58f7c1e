in vec2 v_place;  // -1..1 across the picture
out vec4 color;
uniform vec3 low, high;        // display colors
uniform vec2 slope;            // direction of the gradient
uniform vec4 blobs[6];         // x, y, radius, strength
uniform vec3 blob_colors[6];
uniform float stripes;         // 0, or how many soft vertical bands
uniform float vignette;

void main() {
    float t = clamp(0.5 + 0.5 * dot(v_place, slope), 0.0, 1.0);
    vec3 c = mix(low, high, t * t * (3.0 - 2.0 * t));
    for (int k = 0; k < 6; k++) {
        float d = distance(v_place, blobs[k].xy) / max(blobs[k].z, 0.01);
        c = mix(c, blob_colors[k], blobs[k].w * exp(-d * d));
    }
    if (stripes > 0.0) c *= 1.0 + 0.22 * sin(v_place.x * stripes * 3.14159 + 4.0 * noise(vec3(seed, 1.0, 2.0)));
    c *= 0.96 + 0.08 * noise(vec3(v_place * 3.0, 4.0));
    c *= 1.0 - vignette * dot(v_place, v_place) * 0.25;
    color = vec4(c, 1.0);
}
