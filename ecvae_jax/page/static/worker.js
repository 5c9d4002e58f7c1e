// The network's side of the page: one Web Worker with onnxruntime's sessions, so that the page itself never blocks.
// Messages in: {id, call, args}. Messages out: {id, result} or {id, error}, and {progress: {loaded, total}} while loading.

import * as ort from "./vendor/ort.wasm.min.mjs";
import { NETWORKS, findFace } from "./face.js";
import { layOver, layersOf } from "./overlay.js";

let about, index;
const sessions = new Map();
let kept = null; // {key, photo, reconstruction} of the face whose own pixels are laid over

const calls = { load, find, encode, move, draw, drawFloats, sample };
let queue = Promise.resolve(); // onnxruntime runs one session at a time

self.onmessage = ({ data: { id, call, args } }) => {
  queue = queue.then(async () => {
    try {
      const result = await calls[call](args);
      const buffers = [result?.z, result?.drawn].filter(Boolean).map((array) => array.buffer);
      self.postMessage({ id, result }, buffers);
    } catch (error) {
      self.postMessage({ id, error: error.message || String(error) });
    }
  });
};

/** Fetches the runtime, the networks of the landmarks and, unless a server draws, the model; threads = 0 chooses. */
async function load({ compute, threads }) {
  [index, about] = await Promise.all(["page.json", "model.json"].map(json));
  const graphs = compute ? [] : ["encode", "move", "draw", "overlay", ...(about.functions.sample ? ["sample"] : [])];
  const weights = compute ? [] : Object.keys(about.files).filter((name) => name.endsWith(".bin"));
  const files = [
    "vendor/ort-wasm-simd-threaded.wasm",
    ...NETWORKS.map((name) => `networks/${name}.onnx`),
    ...[...weights, ...graphs.map((name) => `${name}.onnx`)].map((name) => `model/${name}`),
  ];
  const total = files.reduce((sum, name) => sum + index.files[name].bytes, 0);
  let loaded = 0;
  const fetched = new Map(
    await Promise.all(
      files.map(async (name) => [
        name,
        await bytes(name, index.files[name].bytes, (count) => self.postMessage({ progress: { loaded: (loaded += count), total } })),
      ]),
    ),
  );
  // Half the cores, as onnxruntime chooses: the page and other programs need the rest. On 2 busy cores, 2 threads are slower.
  const most = Math.min(4, Math.ceil((navigator.hardwareConcurrency || 1) / 2));
  threads = self.crossOriginIsolated ? threads || most : 1;
  Object.assign(ort.env.wasm, {
    numThreads: threads,
    wasmPaths: new URL("./vendor/", import.meta.url).href,
    wasmBinary: fetched.get(files[0]).buffer,
  });
  const externalData = weights.map((name) => ({ path: name, data: fetched.get(`model/${name}`) }));
  for (const name of NETWORKS) sessions.set(name, await session(fetched.get(`networks/${name}.onnx`)));
  for (const name of graphs) {
    const own = externalData.filter(({ path }) => name === "sample" || path !== "density.bin");
    sessions.set(name, await session(fetched.get(`model/${name}.onnx`), own));
  }
  return { threads };
}

const session = (model, externalData = []) => ort.InferenceSession.create(model, { executionProviders: ["wasm"], externalData });

async function json(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name}: ${answer.status} ${answer.statusText}; reload the page`);
  return answer.json();
}

async function bytes(name, size, count) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name}: ${answer.status} ${answer.statusText}; reload the page`);
  const data = new Uint8Array(size);
  let at = 0;
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if (at + value.length > size) throw new Error(`${name}: longer than ${size} bytes; it is of another page`);
    data.set(value, at);
    at += value.length;
    count(value.length);
  }
  if (at !== size) throw new Error(`${name}: ${at} of ${size} bytes arrived; reload the page`);
  return data;
}

const tensor = (data, ...dims) => new ort.Tensor("float32", data instanceof Float32Array ? data : new Float32Array(data), [1, ...dims]);
const faceTensor = (landmarks) => tensor(landmarks, about.points, 2);
const pictureTensor = (data) => tensor(data, about.image_size, about.image_size, 3);
const latent = (z) => tensor(z, about.z_dim);

async function output(name, inputs) {
  const made = await sessions.get(name).run(inputs);
  return Object.values(made)[0].data;
}

/** Returns the landmarks of the largest face of a photo, in its pixels. */
async function find({ picture, mesh }) {
  const run = async (name, pixels, side) => {
    const network = sessions.get(name);
    const made = await network.run({ [network.inputNames[0]]: new ort.Tensor("float32", pixels, [1, side, side, 3]) });
    return Object.values(made).map(({ data }) => data).sort((one, other) => other.length - one.length);
  };
  return findFace(picture, run, mesh);
}

/** Returns z of a face, the mean of its posterior. */
async function encode({ image, landmarks }) {
  const inputs = { image: pictureTensor(new Float32Array(image).map((v) => v / 255)), landmarks: faceTensor(landmarks) };
  return { z: await output("encode", inputs) };
}

/** Returns z moved from the prior of its landmarks to that of others. */
async function move({ z, landmarks, target }) {
  return { z: await output("move", { z: latent(z), landmarks: faceTensor(landmarks), target_landmarks: faceTensor(target) }) };
}

/** Returns z of `own` drawn under `landmarks`, RGB bytes; with `ownPixels`, those of the last photo at weight `detail`. */
async function draw(face) {
  return { drawn: toBytes((await drawFloats(face)).drawn) };
}

/** Returns the same in floats from 0 to 1. */
async function drawFloats({ z, own, landmarks, ownPixels, photo, key, detail }) {
  if (photo) kept = { key, photo, reconstruction: null, layers: null };
  const { z: moved } = await move({ z, landmarks: own, target: landmarks });
  const drawn = await output("draw", { z: latent(moved), landmarks: faceTensor(landmarks) });
  if (!ownPixels || !detail || kept?.key !== key) return { drawn };
  kept.reconstruction ??= await output("draw", { z: latent(z), landmarks: faceTensor(own) });
  const size = about.image_size;
  kept.layers ??= layersOf(kept.photo, index.fine_size, kept.reconstruction, size);
  const { places, weight, texture_weight: textureWeight } = await sessions.get("overlay").run({
    reconstruction: pictureTensor(kept.reconstruction), drawn: pictureTensor(drawn),
    landmarks: faceTensor(own), target_landmarks: faceTensor(landmarks), detail: tensor([detail], 1),
  });
  const weights = [weight.data, textureWeight.data];
  return { drawn: layOver(kept.layers, index.fine_size, drawn, weights, size, places.data, places.dims[1]) };
}

function toBytes(floats) {
  const bytes = new Uint8ClampedArray(floats.length); // rounds, and clips to 0 … 255
  for (let k = 0; k < floats.length; k++) bytes[k] = 255 * floats[k];
  return bytes;
}

/** Returns z of another person for the landmarks, from the model's density or prior. */
async function sample({ landmarks, seed }) {
  if (!sessions.has("sample")) throw new Error("this model cannot sample in the browser: its prior is a mixture");
  const rank = about.functions.sample.inputs.noise[1];
  return { z: await output("sample", { noise: tensor(normals(rank, seed), rank), landmarks: faceTensor(landmarks) }) };
}

/** Returns standard normal numbers of a seed (mulberry32, Box–Muller). */
function normals(count, seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return Float32Array.from({ length: count }, () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()));
}
