in vec3 v_world;
in vec3 v_normal;
out vec4 color;
uniform vec3 tint;
uniform float alpha;  // 1 the frame; less a lens

void main() {
    vec3 n = normalize(v_normal), view = normalize(camera - v_world);
    if (dot(n, view) < 0.0) n = -n;
    vec3 h = normalize(key_direction + view);
    float nh = clamp(dot(n, h), 0.0, 1.0), edge = pow(1.0 - clamp(dot(n, view), 0.0, 1.0), 3.0);
    vec3 total = tint * (key_color * clamp(dot(n, key_direction), 0.0, 1.0) + ambient(n));
    total += key_color * 0.35 * pow(nh, 50.0);
    if (alpha < 1.0) total = tint + sky * (0.1 + 0.6 * edge);
    color = vec4(display(total), alpha < 1.0 ? alpha + 0.35 * edge : 1.0);
}
