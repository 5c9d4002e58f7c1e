// Resizing, reducing and turning of 8-bit RGB pictures with Pillow's arithmetic, so that crops equal those of the package.
// A picture is {data: Uint8Array (RGB), width, height}.

const BITS = 22; // Pillow's fixed point: 8-bit values times coefficients of 22 bits
const KERNELS = {
  box: { support: 0.5, at: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  bicubic: {
    support: 2,
    at: (x) => {
      const a = -0.5;
      x = Math.abs(x);
      if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
    },
  },
};

/** Returns the first input and the integer coefficients of each output along one axis. */
function coefficients(inSize, start, end, outSize, kernel) {
  const scale = (end - start) / outSize;
  const filterScale = Math.max(scale, 1);
  const support = kernel.support * filterScale;
  const found = [];
  for (let i = 0; i < outSize; i++) {
    const center = start + (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const last = Math.min(inSize, Math.trunc(center + support + 0.5));
    const weights = [];
    let sum = 0;
    for (let x = first; x < last; x++) {
      const weight = kernel.at((x - center + 0.5) / filterScale);
      weights.push(weight);
      sum += weight;
    }
    const whole = weights.map((w) => {
      const share = sum ? w / sum : w;
      return Math.trunc((share < 0 ? -0.5 : 0.5) + share * (1 << BITS));
    });
    found.push({ first, weights: Int32Array.from(whole) });
  }
  return found;
}

const clip = (sum) => Math.min(255, Math.max(0, sum >> BITS));

/** Returns the box [x0, y0, x1, y1] of a picture at another size, as Pillow's Image.resize. */
export function resize(picture, width, height, kernelName, box = [0, 0, picture.width, picture.height]) {
  const kernel = KERNELS[kernelName];
  const across = coefficients(picture.width, box[0], box[2], width, kernel);
  const down = coefficients(picture.height, box[1], box[3], height, kernel);
  const top = down[0].first;
  const bottom = down[height - 1].first + down[height - 1].weights.length;
  const { data } = picture;
  const middle = new Uint8Array(width * (bottom - top) * 3);
  for (let y = top; y < bottom; y++) {
    for (let x = 0; x < width; x++) {
      const { first, weights } = across[x];
      let at = (y * picture.width + first) * 3;
      let r = 1 << (BITS - 1), g = r, b = r;
      for (let k = 0; k < weights.length; k++, at += 3) {
        r += data[at] * weights[k];
        g += data[at + 1] * weights[k];
        b += data[at + 2] * weights[k];
      }
      const to = ((y - top) * width + x) * 3;
      middle[to] = clip(r);
      middle[to + 1] = clip(g);
      middle[to + 2] = clip(b);
    }
  }
  const out = new Uint8Array(width * height * 3);
  const row = width * 3;
  for (let y = 0; y < height; y++) {
    const { first, weights } = down[y];
    for (let x = 0; x < row; x++) {
      let sum = 1 << (BITS - 1);
      let at = (first - top) * row + x;
      for (let k = 0; k < weights.length; k++, at += row) sum += middle[at] * weights[k];
      out[y * row + x] = clip(sum);
    }
  }
  return { data: out, width, height };
}

/** Returns a square of a photo at `size` pixels for a network: black outside the photo. */
export function square(photo, left, top, side, size) {
  const x0 = Math.max(left, 0), y0 = Math.max(top, 0);
  const x1 = Math.min(left + side, photo.width), y1 = Math.min(top + side, photo.height);
  const out = { data: new Uint8Array(size * size * 3), width: size, height: size };
  if (x1 <= x0 || y1 <= y0) return out;
  const scale = size / side;
  const width = Math.max(1, roundEven((x1 - x0) * scale)), height = Math.max(1, roundEven((y1 - y0) * scale));
  const inner = resize(photo, width, height, scale < 1 ? "box" : "bicubic", [x0, y0, x1, y1]);
  paste(out, inner, roundEven((x0 - left) * scale), roundEven((y0 - top) * scale));
  return out;
}

function paste(canvas, picture, left, top) {
  for (let y = Math.max(0, -top); y < picture.height && y + top < canvas.height; y++) {
    const from = Math.max(0, -left), to = Math.min(picture.width, canvas.width - left);
    const row = picture.data.subarray((y * picture.width + from) * 3, (y * picture.width + to) * 3);
    canvas.data.set(row, ((y + top) * canvas.width + left + from) * 3);
  }
}

/** Returns a whole number, halves to the even one, as Python's round. */
export function roundEven(x) {
  const low = Math.floor(x);
  if (x - low !== 0.5) return Math.round(x);
  return low % 2 === 0 ? low : low + 1;
}

/** Returns the part [x0, y0, x1, y1] of a picture; outside it, its reflection continues it. */
export function cut(picture, x0, y0, x1, y1) {
  const width = x1 - x0, height = y1 - y0;
  const out = new Uint8Array(width * height * 3);
  const columns = Array.from({ length: width }, (_, k) => reflected(x0 + k, picture.width) * 3);
  for (let y = 0; y < height; y++) {
    const row = reflected(y0 + y, picture.height) * picture.width * 3;
    for (let x = 0, to = y * width * 3; x < width; x++, to += 3) {
      const from = row + columns[x];
      out[to] = picture.data[from];
      out[to + 1] = picture.data[from + 1];
      out[to + 2] = picture.data[from + 2];
    }
  }
  return { data: out, width, height };
}

function reflected(index, length) {
  if (length === 1) return 0;
  const period = 2 * (length - 1);
  index = Math.abs(index) % period;
  return Math.min(index, period - index);
}

/** Returns means of blocks of factor × factor pixels, as Pillow's Image.reduce. */
export function reduce(picture, factor) {
  const width = Math.ceil(picture.width / factor), height = Math.ceil(picture.height / factor);
  const out = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const y1 = Math.min((y + 1) * factor, picture.height);
    for (let x = 0; x < width; x++) {
      const x1 = Math.min((x + 1) * factor, picture.width);
      const count = (x1 - x * factor) * (y1 - y * factor);
      const multiplier = Math.floor(2 ** 24 / count);
      for (let c = 0; c < 3; c++) {
        let sum = Math.floor(count / 2);
        for (let v = y * factor; v < y1; v++)
          for (let u = x * factor; u < x1; u++) sum += picture.data[(v * picture.width + u) * 3 + c];
        out[(y * width + x) * 3 + c] = Math.floor((sum * multiplier) / 2 ** 24);
      }
    }
  }
  return { data: out, width, height };
}

/** Returns size × size pixels read at (a x + b y + c, d x + e y + f), bilinear, black outside, as Image.transform. */
export function transform(picture, size, [a, b, c, d, e, f]) {
  const { data, width, height } = picture;
  const out = new Uint8Array(size * size * 3);
  const inside = (v, n) => Math.min(Math.max(v, 0), n - 1);
  for (let j = 0; j < size; j++) {
    for (let i = 0; i < size; i++) {
      const u = a * (i + 0.5) + b * (j + 0.5) + c, v = d * (i + 0.5) + e * (j + 0.5) + f;
      if (u < 0 || u >= width || v < 0 || v >= height) continue;
      const x = Math.floor(u - 0.5), y = Math.floor(v - 0.5);
      const dx = u - 0.5 - x, dy = v - 0.5 - y;
      const left = inside(x, width) * 3, right = inside(x + 1, width) * 3;
      const upper = inside(y, height) * width * 3, lower = (y + 1 < height ? inside(y + 1, height) : inside(y, height)) * width * 3;
      for (let k = 0; k < 3; k++) {
        const one = data[upper + left + k], two = data[lower + left + k];
        const first = one + (data[upper + right + k] - one) * dx;
        const second = two + (data[lower + right + k] - two) * dx;
        out[(j * size + i) * 3 + k] = Math.trunc(first + (second - first) * dy);
      }
    }
  }
  return { data: out, width: size, height: size };
}
