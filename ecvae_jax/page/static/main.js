// The page: what is shown, and what happens when something is moved. State is one object; `redraw` draws it.

import { Editor } from "./editor.js";
import { imageDataOf, pngOf } from "./encode.js";
import { ComputeEngine, LocalEngine } from "./engine.js";
import { cropBox, cutCrop, outside, toCropUnits } from "./face.js";
import { photoOfVideo, readPhoto } from "./photo.js";
import { download, replayOf } from "./replay.js";
import { applySliders, borrow, fault, placeOn, withoutCrossing } from "./shape.js";

const $ = (id) => document.getElementById(id);
let about, index, editor, local, engine;
let examples; // name → Blob: fetched once, so that the page works when the network is cut

const state = {
  face: null, // {photo, box, image, fine, landmarks, z}: whose appearance is drawn
  second: null, // {z}: of the second person, moved to the face's landmarks
  base: null, // landmarks before sliders and drags: the face's own, or a borrowed expression
  amounts: {},
  drags: null, // x y offsets that were dragged
  mix: 0,
  detail: 1,
};
let history = [];
let faces = 0; // counts faces: the key by which the worker keeps a photo's reconstruction
let painted = null; // RGB bytes on the canvas

// Start ----------------------------------------------------------------------------------------------------------------

async function start() {
  [index, about] = await Promise.all(["page.json", "model.json"].map(async (name) => (await fetch(name)).json()));
  Object.assign(about, { eyes: index.eyes, openings: index.openings, sliders: index.sliders, expressions: index.expressions });
  Object.assign(index.mesh, { boundaries: about.boundaries, eyes: index.eyes });
  editor = new Editor($("points"), about, { start: remember, move: moved });
  $("points").classList.add("shown");
  editor.show(Float32Array.from(about.mean_face.flat()));
  examples = new Map(await Promise.all(index.examples.map(async (name) => [name, await (await fetch(name)).blob()])));
  makeSliders();
  makeThumbs();
  makePresets();
  listen();
  local = engine = new LocalEngine();
  local.onprogress = ({ loaded, total }) => {
    $("loadingBar").value = loaded / total;
    $("loadingText").textContent = loaded < total ? `Loading ${mega(loaded)} of ${mega(total)} MB` : "Preparing the networks";
  };
  await local.load(index.compute, Number(new URLSearchParams(location.search).get("threads")));
  if (index.compute) {
    $("privacy").textContent = "The crop of your face is sent to the server of this page, which keeps nothing.";
    about = { ...about, ...(await (await fetch("api/model")).json()) };
    index.fine_size = about.fine_size;
    engine = new ComputeEngine();
  }
  $("loading").hidden = true;
  $("main").setAttribute("aria-busy", "false");
  $("engine").textContent = `Computed ${engine.name}. Model of ${about.image_size} px, ecvae ${index.version}.`;
  $("random").disabled = !index.compute && !about.functions.sample;
  await useExample(people()[0]);
}

const mega = (count) => (count / 1e6).toFixed(1);
const people = () => index.examples.filter((name) => name.startsWith("examples/face"));

function makeSliders() {
  for (const { name, label, group, low, high, unit } of about.sliders) {
    const row = document.createElement("label");
    row.className = "slider";
    const text = document.createElement("span"), range = document.createElement("input"), shown = document.createElement("output");
    text.textContent = label;
    Object.assign(range, { type: "range", id: `slider-${name}`, min: low, max: high, step: unit ? 0.5 : 0.01, value: 0 });
    range.classList.toggle("zero", low < 0);
    range.style.setProperty("--zero", `calc(9px + (100% - 18px) * ${-low / (high - low)})`); // where the thumb is at 0
    range.addEventListener("pointerdown", remember);
    range.addEventListener("keydown", (event) => event.key.startsWith("Arrow") && !event.repeat && remember());
    range.addEventListener("dblclick", () => setSlider(name, 0));
    range.addEventListener("input", (event) => {
      state.amounts[name] = Number(range.value);
      redraw(event);
    });
    row.append(text, range, shown);
    $(`sliders-${group}`).append(row);
  }
}

function setSlider(name, value) {
  state.amounts[name] = value;
  redraw();
}

function makeThumbs() {
  const fill = (place, names, use) => {
    for (const name of names) {
      const button = document.createElement("button"), image = document.createElement("img");
      Object.assign(image, { src: URL.createObjectURL(examples.get(name)), alt: name.replace(/^examples\/|\.jpg$/g, "").replace(/(\d)/, " $1") });
      button.dataset.name = name;
      button.setAttribute("aria-pressed", "false");
      button.append(image);
      button.addEventListener("click", () => use(name));
      $(place).append(button);
    }
  };
  fill("people", people(), useExample);
  fill("expressions", index.examples.filter((name) => !name.startsWith("examples/face")), (name) => attempt("Finding the face", async () => borrowFrom(await example(name))));
  fill("seconds", people(), (name) => attempt("Finding the face", async () => useSecond(await example(name), name)));
}

function makePresets() {
  // The most frontal first: in a turned head, the nose is away from the middle of the jaw's ends.
  const { contour, nose_bridge: nose } = about.boundaries;
  const turned = (face) => Math.abs(2 * face[nose.at(-1)][0] - face[contour[0]][0] - face[contour.at(-1)][0]);
  const order = about.cluster_centers.map((face, k) => [k, face]).sort(([, one], [, other]) => turned(one) - turned(other));
  for (const [k, center] of order) {
    const button = document.createElement("button");
    button.setAttribute("aria-label", `Cluster center ${k + 1}`);
    const lines = Object.values(about.boundaries).map((curve) => `<polyline points="${curve.map((i) => center[i].join(",")).join(" ")}"/>`);
    const drawing = new DOMParser().parseFromString(`<svg xmlns="http://www.w3.org/2000/svg" viewBox=".18 .18 .64 .64">${lines.join("")}</svg>`, "image/svg+xml");
    button.append(document.importNode(drawing.documentElement, true));
    button.addEventListener("click", () => adopt(Float32Array.from(center.flat()), `Cluster center ${k + 1}.`));
    $("presets").append(button);
  }
}

// Faces ----------------------------------------------------------------------------------------------------------------

const example = (name) => readPhoto(examples.get(name), name.split("/").pop());

/** Returns the face of a photo: its crop, landmarks and z. */
async function faceOf(photo) {
  const found = await local.find(photo.picture, index.mesh);
  if (!found) throw new Error(`${photo.name}: no face was found. Give a photo with one upright face of 80 pixels or more.`);
  const reason = fault(found.landmarks, photo.picture, about);
  if (reason) throw new Error(`${photo.name}: ${reason}.`);
  const box = cropBox(found.landmarks, index.margin);
  const image = cutCrop(photo.picture, box, about.image_size).data;
  const fine = cutCrop(photo.picture, box, index.fine_size).data;
  const landmarks = toCropUnits(found.landmarks, box);
  return { key: ++faces, photo, box, image, fine, landmarks, z: await engine.encode(image, landmarks), notes: notesOf(found, photo, box) };
}

function notesOf(found, photo, box) {
  const all = [];
  if (found.count > 1) all.push(`${found.count} faces, using the largest.`);
  const beyond = outside(photo.picture, box);
  if (beyond > 0.005) all.push(`${Math.round(100 * beyond)}% of the crop is beyond the photo and is its reflection.`);
  if (box.side < about.image_size / 2) all.push(`The face is small: ${Math.round(box.side)} pixels for a crop of ${about.image_size}.`);
  return all.join(" ");
}

async function usePhoto(photo, name = null) {
  const face = await faceOf(photo);
  Object.assign(state, { face, second: null, mix: 0 });
  press("people", name);
  press("seconds", null);
  paint($("before"), face.fine);
  resetShape();
  say(`${photo.name}: face found. ${face.notes}`);
  await redraw();
}

const useExample = (name) => attempt("Finding the face", async () => usePhoto(await example(name), name));

async function borrowFrom(photo) {
  const { landmarks, notes } = await faceOf(photo);
  adopt(landmarks, `The expression of ${photo.name}. ${notes}`);
}

/** Takes another face's structure: its expression and pose on this face's shape, or its whole shape. */
function adopt(landmarks, text) {
  if (!state.face) return;
  remember();
  const own = state.face.landmarks;
  state.base = $("keep").checked ? borrow(own, landmarks, about) : placeOn(landmarks, own);
  Object.assign(state, { amounts: {}, drags: new Float32Array(own.length) });
  say(text);
  redraw();
}

async function useSecond(photo, name = null) {
  const { z, landmarks } = await faceOf(photo);
  remember();
  state.second = { z: await engine.move(z, landmarks, state.face.landmarks) };
  if (!state.mix) state.mix = 0.5;
  press("seconds", name);
  say(`Blended with ${photo.name}.`);
  await redraw();
}

async function newPerson() {
  const seed = crypto.getRandomValues(new Uint32Array(1))[0];
  const landmarks = state.face?.landmarks ?? Float32Array.from(about.mean_face.flat());
  const z = await engine.sample(landmarks, seed);
  remember();
  Object.assign(state, { face: { key: ++faces, photo: null, box: null, image: null, fine: null, landmarks, z }, second: null, mix: 0 });
  if (!state.base) resetShape();
  press("people", null);
  press("seconds", null);
  say("A new person, drawn for the pose of the last one.");
  await redraw();
}

// Structure -------------------------------------------------------------------------------------------------------------

function resetShape() {
  history = [];
  Object.assign(state, { base: state.face.landmarks, amounts: {}, drags: new Float32Array(2 * about.points) });
}

function target() {
  const slid = applySliders(state.base, state.amounts, about);
  for (let k = 0; k < slid.length; k++) slid[k] += state.drags[k];
  return withoutCrossing(slid, about);
}

function moved(changes, event) {
  if (!state.face) return;
  for (const [k, dx, dy] of changes) {
    state.drags[2 * k] += dx;
    state.drags[2 * k + 1] += dy;
  }
  redraw(event);
}

const shape = () => ({ ...state, amounts: { ...state.amounts }, drags: state.drags && Float32Array.from(state.drags) });

function remember() {
  history.push(shape());
  if (history.length > 100) history.shift();
}

function undo() {
  if (!history.length) return;
  Object.assign(state, history.pop());
  if (state.face.fine) paint($("before"), state.face.fine);
  redraw();
}

// Drawing ---------------------------------------------------------------------------------------------------------------

let drawing = null, again = false, cause = 0;

/** Draws the state. While a picture is computed, only the newest state waits. */
function redraw(event = null) {
  showControls();
  if (event && !cause) cause = event.timeStamp;
  if (drawing) again = true;
  else drawing = drawAll();
  showBusy();
  return drawing;
}

async function drawAll() {
  try {
    do {
      again = false;
      const since = cause;
      cause = 0;
      painted = await engine.draw(request());
      paint($("after"), painted);
      if (since) requestAnimationFrame(() => setTimeout(() => performance.measure("drag", { start: since, end: performance.now() })));
    } while (again);
    hideError();
  } catch (error) {
    fail(error);
  } finally {
    drawing = null;
    showBusy();
  }
}

const showBusy = () => ($("main").dataset.drawing = String(Boolean(drawing || working)));

const isPhoto = () => Boolean(state.face.image) && !(state.second && state.mix);

function latent() {
  const { z } = state.face;
  if (!state.second || !state.mix) return z;
  return z.map((value, k) => value + state.mix * (state.second.z[k] - value));
}

function request() {
  const { face } = state;
  const [image, photo] = isPhoto() ? [face.image, face.fine] : [null, null];
  return { z: latent(), own: face.landmarks, landmarks: target(), image, photo, key: face.key, detail: state.detail };
}

const sideOf = (rgb) => Math.sqrt(rgb.length / 3);

function paint(canvas, rgb) {
  const side = sideOf(rgb);
  if (canvas.width !== side) canvas.width = canvas.height = side;
  canvas.getContext("2d").putImageData(imageDataOf(rgb, side), 0, 0);
}

function showControls() {
  if (!state.face) return;
  editor.show(target());
  for (const { name, unit } of about.sliders) {
    const range = $(`slider-${name}`), value = state.amounts[name] || 0;
    if (Number(range.value) !== value) range.value = value;
    range.nextElementSibling.value = unit ? `${value}${unit}` : `${Math.round(100 * value)}%`;
  }
  $("mix").disabled = !state.second;
  for (const name of ["mix", "detail"]) {
    $(name).value = state[name];
    $(name).nextElementSibling.value = `${Math.round(100 * state[name])}%`;
  }
  $("detail").disabled = !isPhoto();
  $("compare").disabled = !state.face.image;
  $("before").hidden = !state.face.image;
  $("undo").disabled = !history.length;
}

const press = (place, name) => {
  for (const button of $(place).children) button.setAttribute("aria-pressed", String(button.dataset.name === name));
};

// Messages --------------------------------------------------------------------------------------------------------------

function say(text) {
  $("status").textContent = text.trim();
  hideError();
}

function fail(error) {
  console.error(error);
  $("error").textContent = error.message;
  $("error").hidden = false;
  $("status").textContent = "";
}

const hideError = () => ($("error").hidden = true);

let working = 0;

async function attempt(text, work) {
  try {
    working++;
    showBusy();
    say(`${text} …`);
    await work();
  } catch (error) {
    fail(error);
  } finally {
    working--;
    showBusy();
  }
}

// Controls --------------------------------------------------------------------------------------------------------------

function listen() {
  const files = { file: usePhoto, expressionFile: borrowFrom, secondFile: useSecond };
  for (const [id, use] of Object.entries(files)) {
    $(id).addEventListener("change", ({ target: input }) => {
      const [file] = input.files;
      if (file) attempt("Finding the face", async () => use(await readPhoto(file, file.name)));
      input.value = "";
    });
  }
  const given = (list) => [...(list ?? [])].find((file) => file.type.startsWith("image/") || /\.(jpe?g|png|webp|avif|gif|bmp)$/i.test(file.name));
  const open = (file) => file && attempt("Finding the face", async () => usePhoto(await readPhoto(file, file.name)));
  document.addEventListener("paste", (event) => open(given(event.clipboardData?.files)));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    $("drop").classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget ?? $("drop").classList.remove("dropping"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    $("drop").classList.remove("dropping");
    const file = given(event.dataTransfer.files);
    if (file) open(file);
    else fail(new Error("What was dropped is no picture. Drop a JPEG, PNG or WebP file."));
  });
  $("reset").addEventListener("click", () => {
    if (!state.face) return;
    remember();
    Object.assign(state, { base: state.face.landmarks, amounts: {}, drags: new Float32Array(2 * about.points), mix: 0 });
    say("Reset: the photo's own structure.");
    redraw();
  });
  $("undo").addEventListener("click", undo);
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "z") {
      event.preventDefault();
      undo();
    }
  });
  for (const name of ["mix", "detail"]) {
    $(name).addEventListener("pointerdown", remember);
    $(name).addEventListener("input", (event) => {
      state[name] = Number($(name).value);
      redraw(event);
    });
  }
  $("compare").addEventListener("input", () => $("before").style.setProperty("--share", $("compare").value));
  $("showPoints").addEventListener("change", () => $("points").classList.toggle("shown", $("showPoints").checked));
  $("soft").addEventListener("change", () => (editor.soft = $("soft").checked));
  $("random").addEventListener("click", () => attempt("Drawing a person", newPerson));
  $("camera").addEventListener("click", () => attempt("Starting the camera", openCamera));
  $("shoot").addEventListener("click", () => attempt("Finding the face", shoot));
  $("cancelCamera").addEventListener("click", closeCamera);
  $("savePng").addEventListener("click", () => attempt("Saving", savePng));
  $("saveJson").addEventListener("click", () => attempt("Saving", saveJson));
}

async function openCamera() {
  if (!navigator.mediaDevices) throw new Error("The browser gives a camera only to pages on https or 127.0.0.1.");
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 } } }).catch((error) => {
    throw new Error(`No camera: ${error.message}. Allow it in the browser, or choose a photo.`);
  });
  Object.assign($("video"), { srcObject: stream, hidden: false });
  await $("video").play();
  $("cameraBar").hidden = false;
  $("shoot").focus();
  say(engine === local ? "The picture stays on this device." : "The crop of the face goes to the server of this page.");
}

function closeCamera() {
  for (const track of $("video").srcObject?.getTracks() ?? []) track.stop();
  Object.assign($("video"), { srcObject: null, hidden: true });
  $("cameraBar").hidden = true;
}

async function shoot() {
  const photo = await photoOfVideo($("video"));
  closeCamera();
  await usePhoto(photo);
}

const baseName = () => (state.face?.photo?.name ?? "person").replace(/\.[^.]*$/, "");

async function savePng() {
  await drawing;
  if (!painted) throw new Error("Nothing is drawn yet: choose a face first.");
  download(`${baseName()}-moved.png`, "image/png", await pngOf(painted, sideOf(painted)));
  say(`Saved: ${baseName()}-moved.png.`);
}

async function saveJson() {
  await drawing;
  if (!painted) throw new Error("Nothing is drawn yet: choose a face first.");
  const { face, detail } = state;
  const text = await replayOf({ about, index, compute: engine !== local, face, z: latent(), isPhoto: isPhoto(), target: target(), detail });
  download(`${baseName()}-moved.json`, "application/json", text);
  say(`Saved: ${baseName()}-moved.json. It contains the crop of the face.`);
}

start().catch((error) => {
  $("loadingText").textContent = "The page could not start.";
  $("loadingBar").hidden = true;
  fail(error);
});
