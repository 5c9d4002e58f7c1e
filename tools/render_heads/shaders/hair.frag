in vec3 v_world;
in vec3 v_normal;
in vec3 v_tangent;
in vec4 v_strand;
out vec4 color;
uniform float shell;  // 0 the solid sheet .. 1 the loosest layer
uniform vec3 hair;
uniform float curl;

void main() {
    vec3 n = normalize(v_normal), view = normalize(camera - v_world), t = normalize(v_tangent);
    bool back = dot(n, view) < 0.0;
    if (back) n = -n;
    float around = v_strand.x * 140.0, along = v_strand.y;
    float wander = curl * 4.0 * (noise(vec3(around * 0.35, along * 14.0, 2.0)) - 0.5);
    vec3 q = vec3(around + wander, along * mix(2.5, 26.0, curl), 0.0);
    float lock = noise(vec3(q.x * 0.22, q.y * 0.6, 5.0));
    float fine = mix(noise(vec3(q.x * 1.6, q.y, 1.0)), noise(v_world * 17.0), 0.7 * curl);
    float finest = noise(vec3(q.x * 4.0, q.y * 1.4, 7.0));
    // the tips are of different lengths
    if (along > 1.0 - v_strand.w * (0.45 * lock + 0.4 * fine + 0.15 * finest)) discard;
    if (shell > 0.0 && 0.55 * fine + 0.45 * finest < 0.18 + 0.62 * shell) discard;

    float seen = key_visibility(v_world, n);
    vec3 base = hair * (0.55 + 0.75 * lock) * (0.65 + 0.7 * fine) * mix(0.72, 1.15, shell);
    base *= mix(0.75, 1.0, smoothstep(0.0, 0.2, along));
    float facing = dot(n, key_direction);
    float diffuse = clamp((facing + 0.35) / 1.35, 0.0, 1.0) * mix(0.35, 1.0, seen);
    vec3 total = base * (key_color * diffuse + ambient(n) * mix(0.6, 1.0, shell));
    // two highlights across the strands: a white one, and one of the hair's own color shifted towards the tip
    vec3 h = normalize(key_direction + view);
    float s1 = dot(normalize(t + n * (0.08 + 0.25 * (fine - 0.5))), h);
    float s2 = dot(normalize(t - n * (0.18 - 0.3 * (finest - 0.5))), h);
    float a1 = pow(sqrt(max(0.0, 1.0 - s1 * s1)), 90.0), a2 = pow(sqrt(max(0.0, 1.0 - s2 * s2)), 24.0);
    float open = clamp(facing * 2.0 + 0.4, 0.0, 1.0) * seen * (1.0 - 0.75 * curl);
    total += key_color * open * (0.07 * a1 * finest + a2 * 0.55 * hair * fine);
    total += rim_color * clamp(dot(n, rim_direction), 0.0, 1.0) * (base + 0.03);
    if (back) total *= 0.55;
    color = vec4(display(total), 1.0);
}
