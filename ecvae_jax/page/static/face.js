// Faces and their landmarks in a photo: MediaPipe's BlazeFace and face mesh, as ecvae_jax/data/detect/mediapipe runs them.
// `run(network, pixels, side)` gives the outputs of a network, the largest first, as Float32Arrays.

import { cut, reduce, resize, square, transform } from "./resample.js";

const SHORT = { name: "face_detection_short_range", side: 128, grids: [[16, 2], [8, 6]] };
const FULL = { name: "face_detection_full_range", side: 192, grids: [[48, 1]] };
const MESH = { name: "face_landmark", side: 192 };
export const NETWORKS = [SHORT.name, FULL.name, MESH.name];

const MIN_SCORE = 0.5;
const SAME_FACE = 0.3; // intersection over union above which two boxes are one face
const ROOM = 1.5; // side of the square that the mesh network reads, as a multiple of the face's
const EYE_CORNERS = [33, 263];
const SURE_LOGIT = 15;
const MIN_LOGIT = 0;

/** Returns the landmarks (pixels, flat x y) of the largest face and the number of faces; null if there is none. */
export async function findFace(photo, run, mesh) {
  for await (const found of attempts(photo, run)) {
    const faces = [];
    for (const face of found) {
      const points = await eitherWayUp(photo, face, run);
      if (points) faces.push(points);
    }
    if (faces.length) {
      const [largest] = faces.sort((one, other) => area(other) - area(one));
      return { landmarks: toLandmarks(largest, mesh), count: faces.length };
    }
  }
  return null;
}

/** Returns the crop's square {x0, y0, side}: `margin` times the longer side of the landmarks' box. */
export function cropBox(landmarks, margin) {
  const [x0, y0, x1, y1] = bounds(landmarks);
  const side = margin * Math.max(x1 - x0, y1 - y0);
  return { x0: (x0 + x1) / 2 - side / 2, y0: (y0 + y1) / 2 - side / 2, side };
}

/** Returns the square's pixels at `size`, with the photo's reflection outside it: data/photos/crop.py. */
export function cutCrop(photo, box, size) {
  const left = Math.floor(box.x0), top = Math.floor(box.y0);
  const right = Math.max(Math.ceil(box.x0 + box.side), left + 1), bottom = Math.max(Math.ceil(box.y0 + box.side), top + 1);
  const window = cut(photo, left, top, right, bottom);
  const x0 = box.x0 - left, y0 = box.y0 - top;
  const part = [x0, y0, Math.min(x0 + box.side, window.width), Math.min(y0 + box.side, window.height)];
  return resize(window, size, size, box.side >= size ? "box" : "bicubic", part);
}

export const toCropUnits = (landmarks, box) =>
  Float32Array.from(landmarks, (value, k) => (value - (k % 2 ? box.y0 : box.x0)) / box.side);

/** Returns the fraction of the square outside the photo. */
export function outside(photo, { x0, y0, side }) {
  const x = Math.max(0, Math.min(x0 + side, photo.width) - Math.max(x0, 0));
  const y = Math.max(0, Math.min(y0 + side, photo.height) - Math.max(y0, 0));
  return 1 - (x * y) / side ** 2;
}

// BlazeFace ----------------------------------------------------------------------------------------------------------

async function* attempts(photo, run) {
  const { width, height } = photo;
  yield merged(await inPart(SHORT, photo, [0, 0, width, height], run));
  const room = 0.25 * Math.max(width, height); // the network needs room around a face that fills the photo
  yield merged(await inPart(SHORT, photo, [-room, -room, width + room, height + room], run));
  yield merged(await inPart(FULL, photo, [0, 0, width, height], run));
  for (const parts of [2, 4]) {
    const side = (2 * Math.max(width, height)) / (parts + 1);
    if (side < 2 * FULL.side) return;
    const found = [];
    for (let x = 0; x < width; x += side / 2)
      for (let y = 0; y < height; y += side / 2) found.push(...(await inPart(FULL, photo, [x, y, x + side, y + side], run)));
    yield merged(found);
  }
}

async function inPart(network, photo, [x0, y0, x1, y1], run) {
  const side = Math.max(x1 - x0, y1 - y0);
  const left = (x0 + x1 - side) / 2, top = (y0 + y1 - side) / 2;
  const pixels = new Float32Array(square(photo, left, top, side, network.side).data).map((v) => v / 127.5 - 1);
  const [rows, logits] = await run(network.name, pixels, network.side);
  const found = [];
  let at = 0;
  for (const [cells, each] of network.grids) {
    for (let cell = 0; cell < cells * cells; cell++) {
      const anchor = [((cell % cells) + 0.5) / cells, (Math.floor(cell / cells) + 0.5) / cells];
      for (let k = 0; k < each; k++, at++) {
        const score = 1 / (1 + Math.exp(-logits[at]));
        if (score < MIN_SCORE) continue;
        // A row: center, size, then six points (x, y), in pixels of the network; all but the size are from the anchor.
        const place = (n) => [0, 1].map((c) => (rows[at * 16 + 2 * n + c] / network.side + anchor[c]) * side + [left, top][c]);
        const center = place(0), half = [2, 3].map((n) => ((rows[at * 16 + n] / network.side) * side) / 2);
        const box = [center[0] - half[0], center[1] - half[1], center[0] + half[0], center[1] + half[1]];
        found.push({ box, eyes: [...place(2), ...place(3)], score });
      }
    }
  }
  return found;
}

function merged(faces) {
  let rest = [...faces].sort((one, other) => other.score - one.score);
  const found = [];
  while (rest.length) {
    const [first] = rest;
    const group = rest.filter((face) => face === first || overlap(first.box, face.box) > SAME_FACE);
    const total = group.reduce((sum, face) => sum + face.score, 0);
    const mean = (key) => first[key].map((_, k) => group.reduce((sum, face) => sum + face.score * face[key][k], 0) / total);
    found.push({ box: mean("box"), eyes: mean("eyes"), score: first.score });
    rest = rest.filter((face) => !group.includes(face));
  }
  return found;
}

function overlap(a, b) {
  const size = ([x0, y0, x1, y1]) => Math.max(x1 - x0, 0) * Math.max(y1 - y0, 0);
  const shared = size([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
  return shared / Math.max(size(a) + size(b) - shared, 1e-9);
}

// The mesh -----------------------------------------------------------------------------------------------------------

async function eitherWayUp(photo, face, run) {
  const found = await meshOf(photo, face, run);
  if (!found || found.logit >= SURE_LOGIT) return found && found.points;
  // BlazeFace may see an upright face in one upside down.
  const [x0, y0, x1, y1] = face.eyes;
  const turned = await meshOf(photo, { ...face, box: bounds(found.points), eyes: [x1, y1, x0, y0] }, run);
  return turned && turned.logit > found.logit ? turned.points : found.points;
}

/** Returns the mesh's 468 points in pixels of the photo, twice refined, and its logit; null if it sees no face. */
async function meshOf(photo, { box, eyes }, run) {
  const [x0, y0, x1, y1] = box;
  let around = {
    x: (x0 + x1) / 2, y: (y0 + y1) / 2, side: ROOM * Math.max(x1 - x0, y1 - y0),
    angle: Math.atan2(eyes[3] - eyes[1], eyes[2] - eyes[0]),
  };
  let points, logit;
  for (let pass = 0; pass < 2; pass++) {
    if (around.side < 4) return null;
    const pixels = new Float32Array(upright(photo, around, MESH.side)).map((v) => v / 255);
    const [raw, certainty] = await run(MESH.name, pixels, MESH.side);
    logit = certainty[0];
    if (logit < MIN_LOGIT) return null;
    const cos = Math.cos(around.angle), sin = Math.sin(around.angle);
    points = new Float64Array(2 * 468);
    for (let k = 0; k < 468; k++) {
      const u = raw[3 * k] / MESH.side - 0.5, v = raw[3 * k + 1] / MESH.side - 0.5;
      points[2 * k] = around.x + around.side * (cos * u - sin * v);
      points[2 * k + 1] = around.y + around.side * (sin * u + cos * v);
    }
    around = squareAbout(points);
  }
  return { points, logit };
}

function squareAbout(points) {
  const [left, right] = EYE_CORNERS.map((k) => [points[2 * k], points[2 * k + 1]]);
  const angle = Math.atan2(right[1] - left[1], right[0] - left[0]);
  const cos = Math.cos(angle), sin = Math.sin(angle);
  const turned = points.map((_, k) => {
    const x = points[k - (k % 2)], y = points[k - (k % 2) + 1];
    return k % 2 ? cos * y - sin * x : cos * x + sin * y;
  });
  const [x0, y0, x1, y1] = bounds(turned);
  const x = (x0 + x1) / 2, y = (y0 + y1) / 2;
  return { x: cos * x - sin * y, y: sin * x + cos * y, side: ROOM * Math.max(x1 - x0, y1 - y0), angle };
}

/** Returns the square's pixels with the face upright, black outside the photo. */
function upright(photo, { x, y, side, angle }, size) {
  const reach = side * 0.75;
  const low = [x, y].map((at) => Math.floor(Math.max(at - reach, 0)));
  const high = [Math.ceil(Math.min(x + reach, photo.width)), Math.ceil(Math.min(y + reach, photo.height))];
  if (high[0] <= low[0] || high[1] <= low[1]) return new Uint8Array(size * size * 3);
  let part = cut(photo, low[0], low[1], high[0], high[1]);
  const factor = Math.max(1, Math.floor(side / size)); // one bilinear step would alias
  if (factor > 1) part = reduce(part, factor);
  const scale = side / size / factor;
  const a = scale * Math.cos(angle), b = -scale * Math.sin(angle), d = -b, e = a;
  const c = (x - low[0]) / factor - (a + b) * (size / 2), f = (y - low[1]) / factor - (d + e) * (size / 2);
  return transform(part, size, [a, b, c, d, e, f]).data;
}

// Landmarks of the model ----------------------------------------------------------------------------------------------

/** Returns the model's landmarks: means of mesh points (68), or points at equal lengths along its curves (98). */
function toLandmarks(points, mesh) {
  const mean = (chosen, axis) => chosen.reduce((sum, k) => sum + points[2 * k + axis], 0) / chosen.length;
  if (mesh.means) return Float32Array.from(mesh.means.flatMap((chosen) => [mean(chosen, 0), mean(chosen, 1)]));
  const landmarks = new Float32Array(2 * 98);
  for (const [name, curve] of Object.entries(mesh.boundaries)) {
    const line = mesh.curves[name].map((k) => [points[2 * k], points[2 * k + 1]]);
    spaced(line, curve.length).forEach((place, k) => landmarks.set(place, 2 * curve[k]));
  }
  mesh.pupils.forEach((pupil, k) => {
    const eye = mesh.eyes[k];
    for (const axis of [0, 1]) landmarks[2 * pupil + axis] = eye.reduce((s, i) => s + landmarks[2 * i + axis], 0) / eye.length;
  });
  return landmarks;
}

function spaced(line, count) {
  const along = [0];
  for (let k = 1; k < line.length; k++) along.push(along[k - 1] + Math.hypot(line[k][0] - line[k - 1][0], line[k][1] - line[k - 1][1]));
  return Array.from({ length: count }, (_, k) => {
    const wanted = (along.at(-1) * k) / (count - 1);
    const after = Math.max(1, along.findIndex((length, i) => i > 0 && length >= wanted - 1e-12));
    const share = (wanted - along[after - 1]) / Math.max(along[after] - along[after - 1], 1e-12);
    return [0, 1].map((axis) => line[after - 1][axis] + share * (line[after][axis] - line[after - 1][axis]));
  });
}

function bounds(points) {
  let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
  for (let k = 0; k < points.length; k += 2) {
    x0 = Math.min(x0, points[k]); x1 = Math.max(x1, points[k]);
    y0 = Math.min(y0, points[k + 1]); y1 = Math.max(y1, points[k + 1]);
  }
  return [x0, y0, x1, y1];
}

function area(points) {
  const [x0, y0, x1, y1] = bounds(points);
  return (x1 - x0) * (y1 - y0);
}
