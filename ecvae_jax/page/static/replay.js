// What was done, as JSON: `ecvae transfer --replay FILE.json` draws the same picture (ecvae_jax/synthesis/replay.py).

import { base64, pngOf } from "./encode.js";
import { pairs } from "./engine.js";

/** Returns the text of the replay: the crop's pixels, landmarks, settings, and z if no photo alone gives it. */
export async function replayOf({ about, index, compute, face, z, isPhoto, target, detail }) {
  const replay = {
    kind: "ecvae-replay",
    format: 1,
    version: index.version,
    model: { config_sha256: about.config_sha256, step: about.step, half: compute ? false : index.half },
    photo: face.photo && { name: face.photo.name, sha256: face.photo.sha256, width: face.photo.picture.width, height: face.photo.picture.height },
    crop: face.box ?? null,
    image: isPhoto ? base64(await pngOf(face.image, about.image_size)) : null,
    fine: isPhoto && detail ? base64(await pngOf(face.fine, index.fine_size)) : null,
    landmarks: pairs(face.landmarks),
    target_landmarks: pairs(target),
    detail: isPhoto ? detail : 0,
    z: isPhoto ? null : base64(z),
  };
  return JSON.stringify(replay);
}

/** Lets the browser store bytes or text as a file. */
export function download(name, type, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
