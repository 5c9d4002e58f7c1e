// What computes the faces: this browser (worker.js), or the server of `ecvae serve --compute`. Both have one interface:
//   encode(image, landmarks) → z         draw({z, own, landmarks, image, photo, key, detail}) → RGB bytes
//   move(z, landmarks, target) → z       sample(landmarks, seed) → z
// `image` holds RGB bytes of the crop at the model's size, `photo` at the page's `fine_size`; landmarks are flat x y in crop
// units, z is a Float32Array. What is drawn is a square: of fine_size with a photo, else of the model's size. `find` always
// runs here.

import { base64, bytesOf, pngOf } from "./encode.js";

export class LocalEngine {
  constructor() {
    this.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.waiting = new Map();
    this.count = 0;
    this.onprogress = () => {};
    this.worker.onmessage = ({ data: { id, result, error, progress } }) => {
      if (progress) return this.onprogress(progress);
      const { resolve, reject } = this.waiting.get(id);
      this.waiting.delete(id);
      if (error) reject(new Error(error));
      else resolve(result);
    };
    this.worker.onerror = (event) => {
      const reason = new Error(event.message || "the worker could not start; serve the page over http, not from a file");
      for (const { reject } of this.waiting.values()) reject(reason);
      this.waiting.clear();
    };
  }

  ask(call, args = {}) {
    return new Promise((resolve, reject) => {
      const id = ++this.count;
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, call, args });
    });
  }

  async load(compute, threads) {
    Object.assign(this, await this.ask("load", { compute, threads }));
  }

  find(picture, mesh) {
    return this.ask("find", { picture, mesh });
  }

  async encode(image, landmarks) {
    return (await this.ask("encode", { image, landmarks })).z;
  }

  async move(z, landmarks, target) {
    return (await this.ask("move", { z, landmarks, target })).z;
  }

  async draw({ image, photo, ...face }) {
    // The worker keeps the last photo: it is sent once, not with every drag.
    const fresh = photo && this.sent !== face.key;
    if (photo) this.sent = face.key;
    return (await this.ask("draw", { ...face, ownPixels: Boolean(photo), photo: fresh ? photo : null })).drawn;
  }

  async sample(landmarks, seed) {
    return (await this.ask("sample", { landmarks, seed })).z;
  }

  get name() {
    return `in this browser, ${this.threads === 1 ? "1 thread" : `${this.threads} threads`}`;
  }
}

/** The interface of `ecvae serve --compute`: JSON to api/…, images as raw bytes back. */
export class ComputeEngine {
  constructor() {
    this.name = "by the server";
    this.pngs = new WeakMap();
  }

  async png(image) {
    if (!this.pngs.has(image)) this.pngs.set(image, base64(await pngOf(image, Math.sqrt(image.length / 3))));
    return this.pngs.get(image);
  }

  async ask(path, body, accept = "application/json") {
    const answer = await fetch(`api/${path}`, {
      method: "POST",
      headers: { "content-type": "application/json", accept },
      body: JSON.stringify(body),
    });
    if (!answer.ok) {
      const reason = await answer.json().catch(() => ({}));
      throw new Error(`the server answered ${answer.status}: ${reason.error ?? reason.detail ?? answer.statusText}`);
    }
    return answer;
  }

  async latent(path, body) {
    const { z } = await (await this.ask(path, body)).json();
    return new Float32Array(bytesOf(z).buffer);
  }

  async encode(image, landmarks) {
    return this.latent("encode", { image: await this.png(image), landmarks: pairs(landmarks) });
  }

  move(z, landmarks, target) {
    return this.latent("move", { z: base64(z), landmarks: pairs(landmarks), target_landmarks: pairs(target) });
  }

  sample(landmarks, seed) {
    return this.latent("sample", { landmarks: pairs(landmarks), seed });
  }

  async draw({ z, own, landmarks, photo, detail }) {
    const body = { z: base64(z), landmarks: pairs(landmarks), own_landmarks: pairs(own), detail };
    if (photo && detail) body.fine = await this.png(photo);
    const answer = await this.ask("draw", body, "application/octet-stream");
    return new Uint8Array(await answer.arrayBuffer());
  }
}

/** Returns [[x, y], …] of flat landmarks. */
export const pairs = (landmarks) => Array.from({ length: landmarks.length / 2 }, (_, k) => [landmarks[2 * k], landmarks[2 * k + 1]]);
