/** Images as bytes, as numbers, and on the screen. Bytes go RGBRGB..., row by row. */

/** Bytes to numbers in [-1, 1], channel by channel. */
export function toNumbers(bytes) {
  const pixels = bytes.length / 3;
  return Float32Array.from(bytes, (_, i) => {
    return bytes[(i % pixels) * 3 + Math.floor(i / pixels)] / 127.5 - 1;
  });
}

/** Numbers of several images, each of `pixels` pixels, to bytes. */
export function toBytes(x, pixels) {
  return Uint8Array.from(x, (_, i) => {
    const image = Math.floor(i / (3 * pixels));
    const pixel = Math.floor(i / 3) % pixels;
    return Math.round((x[(3 * image + (i % 3)) * pixels + pixel] + 1) * 127.5);
  });
}

/** Draws one image on a canvas of its size. */
export function draw(canvas, bytes) {
  const pixels = new ImageData(canvas.width, canvas.height);
  for (let i = 0; i < pixels.data.length; i++) {
    pixels.data[i] = i % 4 < 3 ? bytes[Math.floor(i / 4) * 3 + (i % 4)] : 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}
