// Value noise from an integer hash: the same numbers on any driver, unlike fract(sin(x)).
uniform float seed;

float hash(ivec3 q) {
    uvec3 u = uvec3(q);
    uint h = u.x * 374761393u + u.y * 668265263u + u.z * 2147483647u + uint(int(seed)) * 3266489917u;
    h = (h ^ (h >> 13)) * 1274126177u;
    h = (h ^ (h >> 16)) * 2246822519u;
    return float((h ^ (h >> 15)) & 0xffffffu) / 16777215.0;
}

float noise(vec3 x) {
    vec3 i = floor(x), f = fract(x);
    f = f * f * (3.0 - 2.0 * f);
    ivec3 q = ivec3(i);
    return mix(mix(mix(hash(q), hash(q + ivec3(1, 0, 0)), f.x),
                   mix(hash(q + ivec3(0, 1, 0)), hash(q + ivec3(1, 1, 0)), f.x), f.y),
               mix(mix(hash(q + ivec3(0, 0, 1)), hash(q + ivec3(1, 0, 1)), f.x),
                   mix(hash(q + ivec3(0, 1, 1)), hash(q + ivec3(1, 1, 1)), f.x), f.y), f.z);
}
