in vec3 position;
in vec3 normal;
in vec3 tangent;
in vec4 strand;
uniform mat4 clip;
uniform float shell;
out vec3 v_world;
out vec3 v_normal;
out vec3 v_tangent;
out vec4 v_strand;

void main() {
    vec3 p = position + normal * shell * strand.z;
    gl_Position = clip * vec4(p, 1.0);
    v_world = p;
    v_normal = normal;
    v_tangent = tangent;
    v_strand = strand;
}
