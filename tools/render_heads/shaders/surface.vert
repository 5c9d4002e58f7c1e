in vec3 position;
in vec3 normal;
in vec2 cavity;
in vec3 rest;
in vec2 uv;
in float part;
in float scalp;
uniform mat4 clip;
uniform float shell;
uniform float shell_depth;
uniform float collar;
out vec3 v_world;
out vec3 v_normal;
out vec3 v_rest;
out vec2 v_uv;
out vec2 v_cavity;
out float v_scalp;
flat out int v_part;

void main() {
    float drop = min(rest.y + 0.32 * (rest.z - 0.3) - collar, 0.9 - abs(rest.x) + 0.5 * (rest.y - 5.9));
    float cloth = part < 0.5 && rest.y < 6.0 ? smoothstep(0.02, -0.06, drop) : 0.0;
    vec3 p = position + normal * (shell * shell_depth + 0.05 * cloth);
    gl_Position = clip * vec4(p, 1.0);
    // teeth and tongue yield to lips and cheeks that an unusual jaw leaves too close to them
    if (part > 2.5 && part < 4.5) gl_Position.z += 0.025 * gl_Position.w;
    v_world = p;
    v_normal = normal;
    v_rest = rest;
    v_uv = uv;
    v_cavity = cavity;
    v_scalp = scalp;
    v_part = int(part + 0.5);
}
