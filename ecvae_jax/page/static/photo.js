// Photos: from a file, the clipboard, the camera or an example, as upright RGB pixels. None of them leaves the browser.

import { pngOf, sha256 } from "./encode.js";

const MOST_PIXELS = 50e6;

/** Returns {picture, name, sha256, bytes} of an image file. */
export async function readPhoto(blob, name) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" });
  } catch {
    const heic = /\.hei[cf]$/i.test(name) ? " Convert HEIC to JPEG first." : "";
    throw new Error(`${name}: the browser cannot read this as a picture.${heic}`);
  }
  if (bitmap.width * bitmap.height > MOST_PIXELS) throw new Error(`${name}: ${bitmap.width}×${bitmap.height} pixels are too many; give a smaller copy`);
  const picture = pixelsOf(bitmap, bitmap.width, bitmap.height);
  return { picture, name, bytes, sha256: await sha256(bytes) };
}

/** Returns a photo of the video's present frame, as a PNG. */
export async function photoOfVideo(video) {
  const picture = pixelsOf(video, video.videoWidth, video.videoHeight);
  const bytes = await pngOf(picture.data, picture.width, picture.height);
  return { picture, name: "camera.png", bytes, sha256: await sha256(bytes) };
}

function pixelsOf(source, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff"; // transparency becomes white, as in ecvae_jax/data/photos
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0);
  const { data: rgba } = context.getImageData(0, 0, width, height);
  const data = new Uint8Array(width * height * 3);
  for (let k = 0, to = 0; to < data.length; k += 4, to += 3) {
    data[to] = rgba[k];
    data[to + 1] = rgba[k + 1];
    data[to + 2] = rgba[k + 2];
  }
  return { data, width, height };
}
