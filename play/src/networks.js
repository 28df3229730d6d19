/** The three networks, run by ONNX Runtime in a worker, so that the page stays quick. */

import * as ort from "./onnxruntime.mjs";

/** A file beside this page. */
async function read(name) {
  let answer;
  try {
    answer = await fetch(new URL(name, import.meta.url));
  } catch {
    throw new Error(`${name} could not be loaded: is there a connection?`);
  }
  if (!answer.ok) throw new Error(`${name} could not be loaded (${answer.status}).`);
  return answer;
}

/** A file of the page in JSON. */
export async function readJson(name) {
  return (await read(name)).json();
}

/**
 * Loads what computes, about 9 MB.
 *
 * @param size  pixels a side of an image.
 */
export async function load(size) {
  // One thread, since several need headers that plain file servers do not send.
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.proxy = true;
  const packed = await read("onnxruntime.wasm.gzip");
  const unpacked = packed.body.pipeThrough(new DecompressionStream("gzip"));
  ort.env.wasm.wasmBinary = await new Response(unpacked).arrayBuffer();
  const names = ["encode.onnx", "decode.onnx", "judge.onnx"];
  const files = await Promise.all(names.map(async (name) => (await read(name)).arrayBuffer()));
  const sessions = [];
  for (const file of files) sessions.push(await ort.InferenceSession.create(new Uint8Array(file)));
  const [encoder, decoder, judge] = sessions;

  // The worker takes away what it is given, so what is used again is given as a copy: slice().
  return {
    /** The features of noised images x at step t: h, the skips, and the time embedding. */
    async encode(x, t) {
      const found = await encoder.run({
        x: new ort.Tensor("float32", x.slice(), [x.length / (3 * size * size), 3, size, size]),
        t: new ort.Tensor("int64", [BigInt(t)], []),
      });
      const { h, ...others } = found;
      return { h: h.data, others, shape: h.dims };
    },

    /** The noise that the decoder half predicts from features. */
    async decode({ h, others, shape }) {
      const { eps } = await decoder.run({ h: new ort.Tensor("float32", h, shape), ...others });
      return eps.data;
    },

    /** For each picture, given as bytes RGBRGB..., the shares that the judge gives the classes. */
    async judge(pictures) {
      const shape = [pictures.length / (3 * size * size), size, size, 3];
      const found = await judge.run({ pictures: new ort.Tensor("uint8", pictures.slice(), shape) });
      const { logits } = found;
      const [n, classes] = logits.dims;
      return Array.from({ length: n }, (_, i) => {
        return softmax(logits.data.slice(i * classes, (i + 1) * classes));
      });
    },
  };
}

function softmax(logits) {
  const most = Math.max(...logits);
  const powers = Array.from(logits, (x) => Math.exp(x - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((x) => x / sum);
}
