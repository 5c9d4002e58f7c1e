// The photo's own pixels over a drawn face, at the photo's size: synthesis/adapt.py, lay_photo_over.

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
const TEXTURE = 1 / 64; // crop units: deviation of the blur that separates texture from shape
const tables = new Map();

/** Returns, per output, the first input and the weights of an enlargement, as jax.image.resize has them. */
function table(from, to, kernelName) {
  const name = `${from} ${to} ${kernelName}`;
  if (!tables.has(name)) {
    const { reach, at } = KERNELS[kernelName];
    const rows = Array.from({ length: to }, (_, k) => {
      const center = ((k + 0.5) * from) / to - 0.5;
      const first = Math.max(0, Math.ceil(center - reach)), last = Math.min(from - 1, Math.floor(center + reach));
      const weights = Array.from({ length: last - first + 1 }, (_, j) => at(first + j - center));
      const sum = weights.reduce((one, other) => one + other, 0);
      return { first, weights: Float64Array.from(weights, (weight) => weight / sum) };
    });
    tables.set(name, rows);
  }
  return tables.get(name);
}

/** Returns the weights of a blur, per output, as synthesis/adapt.py, photo_layers, has them; deviation in cells. */
function blurTable(side, deviation) {
  const name = `${side} blur ${deviation}`;
  if (!tables.has(name)) {
    const reach = Math.floor(3 * deviation);
    const rows = Array.from({ length: side }, (_, k) => {
      const first = Math.max(0, k - reach), last = Math.min(side - 1, k + reach);
      const weights = Array.from({ length: last - first + 1 }, (_, j) => Math.exp(-0.5 * ((first + j - k) / deviation) ** 2));
      const sum = weights.reduce((one, other) => one + other, 0);
      return { first, weights: Float64Array.from(weights, (weight) => weight / sum) };
    });
    tables.set(name, rows);
  }
  return tables.get(name);
}

/** Returns a square map of `channels` enlarged from side to `to`. */
export function enlarge(map, side, to, channels, kernelName) {
  return side === to ? map : filtered(map, side, to, channels, table(side, to, kernelName));
}

/** Returns a square map filtered along its rows and columns by a table of weights. */
function filtered(map, side, to, channels, rows) {
  const wide = new Float32Array(side * to * channels), out = new Float32Array(to * to * channels);
  for (let y = 0; y < side; y++)
    for (let x = 0; x < to; x++) {
      const { first, weights } = rows[x];
      for (let c = 0; c < channels; c++) {
        let sum = 0;
        for (let k = 0, at = (y * side + first) * channels + c; k < weights.length; k++, at += channels) sum += weights[k] * map[at];
        wide[(y * to + x) * channels + c] = sum;
      }
    }
  const row = to * channels;
  for (let y = 0; y < to; y++) {
    const { first, weights } = rows[y];
    for (let x = 0; x < row; x++) {
      let sum = 0;
      for (let k = 0, at = first * row + x; k < weights.length; k++, at += row) sum += weights[k] * wide[at];
      out[y * row + x] = sum;
    }
  }
  return out;
}

/** Returns a photo's texture, size × size × 3: the fine detail that its reconstruction, floats of `side` cells, lacks. */
export function textureOf(photo, size, reconstruction, side) {
  const lacking = enlarge(reconstruction, side, size, 3, "cubic").map((value, k) => photo[k] / 255 - value);
  const shape = filtered(lacking, size, size, 3, blurTable(size, TEXTURE * size));
  return lacking.map((value, k) => value - shape[k]);
}

/**
 * Returns the drawn face with the photo's pixels, floats in [0, 1], size × size × 3.
 * `photo` has RGB bytes of size × size, `texture` is textureOf it; `drawn` and the `weights` of both have `side` cells,
 * `places` `cells` (x, y of the photo, crop units).
 */
export function layOver({ photo, texture }, size, drawn, weights, side, places, cells) {
  const image = enlarge(drawn, side, size, 3, "cubic");
  const [share, fine] = weights.map((weight) => enlarge(weight, side, size, 1, "linear"));
  const offsets = Float32Array.from(places, (at, k) => at - ((k % 2 ? Math.floor(k / 2 / cells) : (k >> 1) % cells) + 0.5) / cells);
  const moved = enlarge(offsets, cells, size, 2, "linear");
  const out = new Float32Array(image);
  for (let y = 0, k = 0; y < size; y++) {
    for (let x = 0; x < size; x++, k++) {
      const part = share[k], finePart = fine[k];
      if (part < 1e-4 && finePart < 1e-4) continue;
      const u = Math.min(Math.max(moved[2 * k] * size + x, 0), size - 1), v = Math.min(Math.max(moved[2 * k + 1] * size + y, 0), size - 1);
      const left = Math.min(Math.floor(u), size - 2), top = Math.min(Math.floor(v), size - 2);
      const dx = u - left, dy = v - top, at = 3 * (top * size + left), below = at + 3 * size;
      for (let c = 0; c < 3; c++) {
        const upper = photo[at + c] + (photo[at + 3 + c] - photo[at + c]) * dx;
        const lower = photo[below + c] + (photo[below + 3 + c] - photo[below + c]) * dx;
        const above = texture[at + c] + (texture[at + 3 + c] - texture[at + c]) * dx;
        const under = texture[below + c] + (texture[below + 3 + c] - texture[below + c]) * dx;
        out[3 * k + c] += part * ((upper + (lower - upper) * dy) / 255 - image[3 * k + c]) + finePart * (above + (under - above) * dy);
      }
    }
  }
  return out;
}
