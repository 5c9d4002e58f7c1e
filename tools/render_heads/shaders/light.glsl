// One key light with a soft shadow, one rim light from behind, sky and ground. Colors are linear.
uniform vec3 camera;
uniform vec3 key_direction;
uniform vec3 key_color;
uniform vec3 rim_direction;
uniform vec3 rim_color;
uniform vec3 sky;
uniform vec3 ground;
uniform mat4 to_light;
uniform sampler2DShadow shadow_map;
uniform float softness;

const vec2 TAPS[12] = vec2[](
    vec2(-0.326, -0.406), vec2(-0.840, -0.074), vec2(-0.696, 0.457), vec2(-0.203, 0.621), vec2(0.962, -0.195),
    vec2(0.473, -0.480), vec2(0.519, 0.767), vec2(0.185, -0.893), vec2(0.507, 0.064), vec2(0.896, 0.412),
    vec2(-0.322, -0.933), vec2(-0.792, -0.598));

float key_visibility(vec3 world, vec3 normal) {
    vec4 p = to_light * vec4(world + 0.03 * normal, 1.0);
    vec3 q = p.xyz * 0.5 + 0.5;
    float seen = 0.0;
    for (int k = 0; k < 12; k++) seen += texture(shadow_map, vec3(q.xy + TAPS[k] * softness, q.z - 0.004));
    return mix(0.18, 1.0, seen / 12.0);  // some light always finds its way around
}

vec3 ambient(vec3 normal) { return mix(ground, sky, 0.5 + 0.5 * normal.y); }

vec3 display(vec3 linear_color) {
    vec3 x = max(linear_color, 0.0);
    x = x * (1.0 + 0.12 * x) / (1.0 + 0.45 * x) * 1.28;
    return pow(clamp(x, 0.0, 1.0), vec3(1.0 / 2.2));
}
