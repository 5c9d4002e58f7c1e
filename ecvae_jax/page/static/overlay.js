// The photo's own pixels over a drawn face, at the photo's size: synthesis/photo.py, lay_photo_over.

const KERNELS = {
  linear: { reach: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  cubic: {
    reach: 2,
    at: (x) => {
      x = Math.abs(x);
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
      return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
    },
  },
};
const TEXTURE = 1 / 48; // crop units: deviation of the blur that separates texture from shape
const LEAST = 1e-4; // smaller weights change no pixel
const tables = new Map();

/** Returns the weights of an enlargement, as jax.image.resize has them. */
function enlargement(from, to, kernelName) {
  const { reach, at } = KERNELS[kernelName], center = (k) => ((k + 0.5) * from) / to - 0.5;
  return table(`${from} ${to} ${kernelName}`, from, to, 2 * reach, (k) => Math.ceil(center(k) - reach), (k, from) => at(from - center(k)));
}

/** Returns the weights of a blur, as synthesis/photo.py, photo_layers, has them; deviation in cells. */
function blur(side, deviation) {
  const reach = Math.floor(3 * deviation);
  return table(`${side} blur ${deviation}`, side, side, 2 * reach + 1, (k) => k - reach, (k, from) => Math.exp(-0.5 * ((from - k) / deviation) ** 2));
}

/** Returns, per output, the first of the `taps` inputs that it reads, and their weights, which sum to 1. */
function table(name, from, to, taps, firstOf, weightOf) {
  if (tables.has(name)) return tables.get(name);
  const firsts = new Int32Array(to), weights = new Float64Array(to * taps);
  for (let k = 0; k < to; k++) {
    const start = firstOf(k), first = Math.min(Math.max(start, 0), from - taps);
    let sum = 0;
    for (let j = Math.max(start, 0); j < Math.min(start + taps, from); j++) sum += weights[k * taps + j - first] = weightOf(k, j);
    for (let j = 0; j < taps; j++) weights[k * taps + j] /= sum;
    firsts[k] = first;
  }
  tables.set(name, { taps, firsts, weights });
  return tables.get(name);
}

/** Returns a square map of `channels` enlarged from side to `to`. */
export function enlarge(map, side, to, channels, kernelName) {
  return side === to ? map.slice() : filtered(map, side, to, channels, enlargement(side, to, kernelName));
}

/** Returns a square map filtered along its rows and columns by a table of weights. */
function filtered(map, side, to, channels, { taps, firsts, weights }) {
  const row = to * channels, wide = new Float32Array(side * row), out = new Float32Array(to * row);
  for (let y = 0, o = 0; y < side; y++)
    for (let x = 0; x < to; x++)
      for (let c = 0, start = (y * side + firsts[x]) * channels; c < channels; c++, o++) {
        let sum = 0;
        for (let k = 0, w = x * taps, at = start + c; k < taps; k++, at += channels) sum += weights[w + k] * map[at];
        wide[o] = sum;
      }
  for (let y = 0; y < to; y++) {
    const sums = out.subarray(y * row, (y + 1) * row);
    for (let k = 0; k < taps; k++) {
      const weight = weights[y * taps + k], values = wide.subarray((firsts[y] + k) * row, (firsts[y] + k + 1) * row);
      if (weight) for (let x = 0; x < row; x++) sums[x] += weight * values[x]; // row by row: in the order of the memory
    }
  }
  return out;
}

/**
 * Returns what layOver lays over, floats of size × size × 3: a photo in [0, 1], and its texture, the fine detail that its
 * reconstruction (floats of `side` cells) lacks. `bytes` are the photo's.
 */
export function layersOf(bytes, size, reconstruction, side) {
  const photo = new Float32Array(bytes).map((value) => value / 255); // both float32: one kind of array is read faster
  const lacking = enlarge(reconstruction, side, size, 3, "cubic").map((value, k) => photo[k] - value);
  const shape = filtered(lacking, size, size, 3, blur(size, TEXTURE * size));
  return { photo, texture: lacking.map((value, k) => value - shape[k]) };
}

/**
 * Returns the drawn face with the photo's pixels, floats in [0, 1], size × size × 3.
 * `photo` and `texture` are layersOf it; `drawn` and the `weights` of both have `side` cells, `places` `cells` (x, y of
 * the photo, crop units).
 */
export function layOver({ photo, texture }, size, drawn, weights, side, places, cells) {
  const image = enlarge(drawn, side, size, 3, "cubic");
  const [share, fine] = weights.map((weight) => enlarge(weight, side, size, 1, "linear"));
  const offsets = Float32Array.from(places, (at, k) => at - ((k % 2 ? Math.floor(k / 2 / cells) : (k >> 1) % cells) + 0.5) / cells);
  const moved = enlarge(offsets, cells, size, 2, "linear");
  for (let y = 0, k = 0; y < size; y++) {
    for (let x = 0; x < size; x++, k++) {
      const part = share[k], finePart = fine[k];
      const own = part >= LEAST, textured = finePart >= LEAST;
      if (!own && !textured) continue;
      const u = Math.min(Math.max(moved[2 * k] * size + x, 0), size - 1), v = Math.min(Math.max(moved[2 * k + 1] * size + y, 0), size - 1);
      const left = Math.min(Math.floor(u), size - 2), top = Math.min(Math.floor(v), size - 2);
      const dx = u - left, dy = v - top, at = 3 * (top * size + left), to = 3 * k;
      if (own) for (let c = 0; c < 3; c++) image[to + c] += part * (bilinear(photo, at + c, size, dx, dy) - image[to + c]);
      if (textured) for (let c = 0; c < 3; c++) image[to + c] += finePart * bilinear(texture, at + c, size, dx, dy);
    }
  }
  return image;
}

function bilinear(map, at, size, dx, dy) {
  const below = at + 3 * size;
  const upper = map[at] + (map[at + 3] - map[at]) * dx, lower = map[below] + (map[below + 3] - map[below]) * dx;
  return upper + (lower - upper) * dy;
}
