/** Random numbers that a seed and a name decide, so that a link draws the same images again. */

/** Uniform numbers in (0, 1): mulberry32, a generator of 32 bits. */
function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return (((z ^ (z >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
}

/** One number for a seed and a name (FNV-1a). */
function hash(seed, name) {
  let value = 0x811c9dc5;
  for (const character of `${seed}/${name}`) {
    value = Math.imul(value ^ character.charCodeAt(0), 0x01000193);
  }
  return value;
}

/** A function that gives the next n standard normal numbers (Box and Muller). */
export function normals(seed, name) {
  const draw = uniform(hash(seed, name));
  return (n) =>
    Float32Array.from({ length: n }, () => {
      return Math.sqrt(-2 * Math.log(draw())) * Math.cos(2 * Math.PI * draw());
    });
}
