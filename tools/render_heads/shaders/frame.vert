in vec3 position;
in vec3 normal;
uniform mat4 clip;
out vec3 v_world;
out vec3 v_normal;

void main() {
    gl_Position = clip * vec4(position, 1.0);
    v_world = position;
    v_normal = normal;
}
