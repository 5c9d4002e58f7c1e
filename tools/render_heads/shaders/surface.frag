in vec3 v_world;
in vec3 v_normal;
in vec3 v_rest;
in vec2 v_uv;
in vec2 v_cavity;
in float v_scalp;
flat in int v_part;
out vec4 color;

uniform sampler2D masks;  // lips, lids, inside of the mouth, ears
uniform float shell;      // 0 the skin itself; else a layer of beard above it
uniform vec3 skin, lips, hair, iris, brow_color, cloth, makeup, mole;
uniform vec3 eye_left, eye_right, gaze;
uniform float age, redness, freckles, eye_shade, eye_makeup, oily, brow_thickness, brow_density, lashes;
uniform float scalp_paint, beard_density, collar;
uniform int beard;  // 0 none, 1 stubble, 2 moustache, 3 goatee, 4 full, 5 chin strap

float beard_mask(vec3 c) {
    float x = abs(c.x);
    float edge = mix(6.60, 7.02, smoothstep(0.34, 0.76, x));
    float below = smoothstep(6.02, 6.16, c.y) * mix(1.0, smoothstep(0.62, 0.85, c.z), smoothstep(6.45, 6.25, c.y));
    float cheeks = smoothstep(edge + 0.07, edge - 0.07, c.y) * below * smoothstep(0.56, 0.70, c.z);
    float lip = smoothstep(0.35, 0.20, x + 0.6 * max(0.0, 6.68 - c.y)) * smoothstep(6.56, 6.66, c.y)
        * smoothstep(6.82 - 0.25 * x, 6.76 - 0.25 * x, c.y) * smoothstep(1.25, 1.35, c.z);
    float chin = smoothstep(0.30, 0.22, x) * smoothstep(6.62, 6.56, c.y) * below * smoothstep(0.9, 1.1, c.z);
    float sides = smoothstep(0.16, 0.22, x) * smoothstep(0.36, 0.29, x)
        * smoothstep(6.75, 6.68, c.y) * below * step(1.1, c.z);
    float strap = cheeks * smoothstep(mix(6.30, 6.95, smoothstep(0.25, 0.76, x)) + 0.10,
                                      mix(6.30, 6.95, smoothstep(0.25, 0.76, x)), c.y);
    if (beard == 1 || beard == 4) return max(max(cheeks, lip), chin);
    if (beard == 2) return lip;
    if (beard == 3) return max(max(lip, chin), sides);
    if (beard == 5) return strap;
    return 0.0;
}

void main() {
    vec3 n = normalize(v_normal), view = normalize(camera - v_world), c = v_rest;
    if (dot(n, view) < 0.0 && v_part != 5) n = normalize(n - 1.02 * dot(n, view) * view);
    float x = abs(c.x);
    vec4 mask = texture(masks, v_uv);
    float shade = 1.0 - clamp(2.6 * max(v_cavity.x, 0.0) * 4.0, 0.0, 0.55);
    shade *= 1.0 - clamp(3.2 * max(v_cavity.y, 0.0), 0.0, 0.6);
    vec3 base = skin, tint = vec3(0.0);
    float gloss = 0.32 * oily, tight = 0.28, wrap = 1.0;
    bool is_skin = v_part == 0;
    float grain = noise(c * vec3(70.0, 70.0, 70.0));

    if (is_skin) {
        float hairy = beard_mask(c) * (1.0 - mask.r);
        if (shell > 0.0) {
            float strands = noise(vec3(c.x * 55.0, c.y * 16.0, c.z * 55.0)) * 0.6 + 0.4 * grain;
            if (strands < 0.30 + 0.45 * shell || hairy * beard_density < 0.25 + 0.5 * shell) discard;
        }
        float mottle = noise(c * 5.0) * 0.5 + noise(c * 13.0) * 0.3 + noise(c * 37.0) * 0.2;
        base *= 0.88 + 0.24 * mottle;
        float cheek = smoothstep(0.36, 0.08, distance(vec2(x, c.y), vec2(0.46, 6.93))) * step(0.7, c.z);
        float nose = smoothstep(0.17, 0.03, distance(c.xy, vec2(0.0, 6.92))) * step(1.4, c.z);
        float chin = smoothstep(0.2, 0.05, distance(c.xy, vec2(0.0, 6.33))) * step(1.2, c.z);
        float red = redness * (0.8 * cheek + 0.75 * nose + 0.35 * chin + 0.6 * mask.a) * (0.7 + 0.6 * noise(c * 9.0));
        base *= mix(vec3(1.0), vec3(1.05, 0.74, 0.72), clamp(red, 0.0, 1.0));
        float freckled = max(cheek, smoothstep(0.3, 0.1, distance(c.xy, vec2(0.0, 7.0))));
        float brown = freckles * 0.75 * smoothstep(0.62, 0.80, noise(c * 55.0)) * freckled;
        base *= mix(vec3(1.0), vec3(0.70, 0.50, 0.40), brown);
        float spots = age * smoothstep(0.66, 0.8, noise(c * 16.0 + 31.0)) * 0.28;
        base *= mix(vec3(1.0), vec3(0.78, 0.64, 0.56), spots);
        float marked = mole.z > 0.0 && c.z > 0.9 ? smoothstep(mole.z, 0.6 * mole.z, distance(c.xy, mole.xy)) : 0.0;
        base = mix(base, skin * vec3(0.28, 0.18, 0.15), marked);
        float from_eye = length(vec2(0.8 * (x - 0.31), 1.15 * (c.y - 7.27)));
        float socket = smoothstep(0.30, 0.10, from_eye) * step(1.0, c.z);
        base *= mix(vec3(1.0), vec3(0.80, 0.70, 0.72), socket * (0.35 + 0.65 * eye_shade));
        float from_lid = length(vec2(x - 0.32, 1.5 * (c.y - 7.345)));
        float lid = smoothstep(0.22, 0.12, from_lid) * smoothstep(7.27, 7.31, c.y) * step(1.1, c.z);
        base = mix(base, makeup, 0.6 * lid * eye_makeup);
        // fine lines of age: forehead, crow's feet
        float lines = smoothstep(0.6, 0.9, sin(c.y * 58.0 + 3.0 * noise(c * 3.0)))
            * smoothstep(7.52, 7.62, c.y) * smoothstep(0.6, 0.3, x) * step(1.1, c.z);
        float crow = smoothstep(0.5, 0.9, sin((c.y - 7.27) / max(x - 0.36, 0.02) * 6.0))
            * smoothstep(0.48, 0.53, x) * smoothstep(0.66, 0.56, x)
            * smoothstep(0.12, 0.05, abs(c.y - 7.27)) * step(0.9, c.z);
        base *= 1.0 - 0.20 * age * (lines + crow) * (0.4 + 0.6 * noise(c * 6.0));
        base = mix(base, lips * (0.9 + 0.2 * noise(vec3(c.x * 60.0, c.y * 8.0, 1.0))), 0.85 * mask.r);
        gloss = mix(gloss, 0.6, mask.r);
        tight = mix(tight, 0.75, mask.r);
        float inside = mask.b;
        base = mix(base, vec3(0.11, 0.022, 0.02), inside);
        shade *= mix(1.0, 0.35, inside);
        // eyebrow, about the curve that landmarks98.json follows
        float u = (x - 0.13) / 0.47;
        float middle = 7.42 + 0.10 * sin(clamp(u, 0.0, 1.0) * 2.4) - 0.05 * u;
        float half_width = brow_thickness * 0.055 * (1.0 - 0.55 * u);
        float brow = smoothstep(half_width * 1.15, half_width * 0.45, abs(c.y - middle))
            * smoothstep(-0.06, 0.05, u) * smoothstep(1.06, 0.85, u) * step(0.9, c.z);
        brow *= 0.72 + 0.5 * noise(vec3(c.x * 46.0 - sign(c.x) * c.y * 30.0, c.y * 22.0, c.z * 10.0));
        base = mix(base, brow_color, clamp(brow * brow_density * 1.05, 0.0, 0.95));
        gloss *= 1.0 - 0.7 * brow;
        // beard on the skin
        float stubble = hairy * beard_density * mix(beard == 1 ? 0.5 : 0.85, 1.1, noise(c * vec3(60.0, 40.0, 60.0)));
        float cover = shell > 0.0 ? 1.0 : stubble;
        base = mix(base, hair * (shell > 0.0 ? 0.6 + 0.6 * shell : 0.75), clamp(cover, 0.0, 0.92));
        gloss *= 1.0 - 0.75 * clamp(stubble, 0.0, 1.0);
        // scalp under the hair
        float frayed = 0.10 * (noise(c * 7.0) - 0.5) + 0.06 * (noise(c * 30.0) - 0.5);
        float scalp = smoothstep(-0.05, 0.07, v_scalp + frayed) * (1.0 - mask.a);
        scalp *= scalp_paint * (0.85 + 0.3 * grain);
        base = mix(base, hair * 0.8, clamp(scalp, 0.0, 0.96));
        gloss *= 1.0 - 0.6 * clamp(scalp, 0.0, 1.0);
        float drop = min(c.y + 0.32 * (c.z - 0.3) - collar, 0.9 - x + 0.5 * (c.y - 5.9));
        float dressed = smoothstep(0.0, -0.03, drop) * step(c.y, 6.0);
        base = mix(base, cloth * (0.93 + 0.14 * noise(c * 25.0)), dressed);
        gloss *= 1.0 - 0.9 * dressed;
        wrap = 1.0 - dressed;
        shade *= mix(1.0, 0.72, smoothstep(6.25, 6.0, c.y) * smoothstep(1.35, 0.95, c.z) * (1.0 - dressed));
    } else if (v_part == 1 || v_part == 2) {
        vec3 center = v_part == 1 ? eye_left : eye_right, d = normalize(c - center);
        float r = acos(clamp(dot(d, gaze), -1.0, 1.0));
        float vein = noise(d * 14.0);
        base = mix(vec3(0.72, 0.69, 0.66), vec3(0.62, 0.42, 0.38), 0.30 * smoothstep(0.6, 1.1, r) + 0.1 * vein);
        vec3 flare = iris * (0.65 + 0.8 * noise(d * 26.0)) * (0.75 + 0.7 * smoothstep(0.42, 0.2, r));
        flare *= mix(1.0, 0.35, smoothstep(0.40, 0.48, r));
        base = mix(flare, base, smoothstep(0.465, 0.515, r));
        base = mix(vec3(0.006), base, smoothstep(0.165, 0.21, r));
        float lid = smoothstep(0.02, 0.13, c.y - center.y);
        shade = (1.0 - 0.55 * lid) * (1.0 - 0.4 * smoothstep(0.07, 0.15, abs(c.x - center.x)));
        gloss = 0.25;
        tight = 1.0;
        wrap = 0.3;
    } else if (v_part == 3) {
        base = vec3(0.66, 0.61, 0.52) * (0.82 + 0.18 * smoothstep(0.0, 0.5, abs(fract(c.x * 12.0) - 0.5) * 2.0));
        shade = mix(0.25, 0.85, smoothstep(1.05, 1.45, c.z)) * mix(1.0, 0.6, smoothstep(0.12, 0.3, x));
        gloss = 0.5; tight = 0.8; wrap = 0.5;
    } else if (v_part == 4) {
        base = vec3(0.36, 0.10, 0.09);
        shade = mix(0.2, 0.8, smoothstep(0.95, 1.4, c.z));
        gloss = 0.4; tight = 0.6;
    } else {
        if (noise(vec3(c.x * 90.0, c.y * 20.0, 3.0)) > 0.35 + 0.5 * lashes) discard;
        color = vec4(display(brow_color * 0.25), 1.0);
        return;
    }

    float facing = dot(n, key_direction);
    float seen = key_visibility(v_world, n);
    // red light travels farther under the skin: it reaches past the terminator and into the edge of a shadow
    vec3 reach = wrap * vec3(0.30, 0.13, 0.09);
    vec3 lit = clamp((facing + reach) / (1.0 + reach), 0.0, 1.0);
    lit *= mix(vec3(seen), pow(vec3(seen), vec3(0.72, 1.0, 1.08)), wrap);
    vec3 shade3 = mix(vec3(shade), pow(vec3(shade), vec3(0.78, 1.08, 1.15)), wrap);
    float behind = clamp(dot(n, rim_direction), 0.0, 1.0);
    vec3 arriving = key_color * lit * mix(vec3(1.0), shade3, 0.65) + ambient(n) * shade3 + rim_color * behind * shade;
    vec3 total = base * arriving;

    vec3 h = normalize(key_direction + view);
    float nh = clamp(dot(n, h), 0.0, 1.0), fresnel = 0.35 + 0.65 * pow(1.0 - clamp(dot(view, h), 0.0, 1.0), 4.0);
    float bright = mix(0.55 * pow(nh, 14.0) + 0.5 * pow(nh, 48.0), pow(nh, 160.0) * 1.6 + 0.5 * pow(nh, 40.0), tight);
    bright *= is_skin ? 0.75 + 0.5 * grain : 1.0;
    total += key_color * gloss * 0.42 * bright * fresnel * seen * clamp(facing * 4.0, 0.0, 1.0) * shade;
    float edge = pow(1.0 - clamp(dot(n, view), 0.0, 1.0), 4.0);
    total += ambient(n) * edge * (0.25 + gloss * 0.4) * shade * (is_skin ? 0.45 + base : vec3(0.2));
    if (v_part == 1 || v_part == 2) {  // the catchlight
        vec3 window = normalize(key_direction + vec3(0.0, 0.15, 0.5));
        total += 0.5 * smoothstep(0.975, 0.99, dot(reflect(-view, n), window));
    }
    color = vec4(display(total), 1.0);
}
