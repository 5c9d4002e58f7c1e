// Bytes as Base64, PNG and checksums.

/** Returns the Base64 of a typed array's bytes. */
export function base64(array) {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  let text = "";
  for (let k = 0; k < bytes.length; k += 0x8000) text += String.fromCharCode(...bytes.subarray(k, k + 0x8000));
  return btoa(text);
}

/** Returns the bytes of a Base64 text. */
export const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

/** Returns RGB bytes as ImageData. */
export function imageDataOf(rgb, width, height = width) {
  const image = new ImageData(width, height);
  for (let k = 0, to = 0; k < rgb.length; k += 3, to += 4) {
    image.data[to] = rgb[k];
    image.data[to + 1] = rgb[k + 1];
    image.data[to + 2] = rgb[k + 2];
    image.data[to + 3] = 255;
  }
  return image;
}

/** Returns RGB bytes as the bytes of a PNG. */
export async function pngOf(rgb, width, height = width) {
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(imageDataOf(rgb, width, height), 0, 0);
  const blob = await canvas.convertToBlob({ type: "image/png" });
  return new Uint8Array(await blob.arrayBuffer());
}

/** Returns the SHA-256 of bytes in hexadecimal; null on a page without a secure origin, where browsers have none. */
export async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) return null;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
