/**
 * DDIM with an anchor's middle mixed in, as `clsp_utils.positives.interpolate` does it.
 *
 * Images here are Float32Arrays of [-1, 1], one image after the other, each channel by channel.
 */

const T = 1000;

/** alphaBar[t]: what the noise has left of the clean image's variance at step t. */
const alphaBar = [];
for (let t = 0, product = 1; t < T; t++) {
  const beta = 1e-4 + ((0.02 - 1e-4) * t) / (T - 1);
  product *= 1 - beta;
  alphaBar.push(product);
}

/** A clean image, noised to step t. */
function noised(clean, noise, t) {
  const a = Math.sqrt(alphaBar[t]);
  const b = Math.sqrt(1 - alphaBar[t]);
  return clean.map((x, i) => a * x + b * noise[i]);
}

/** w h + (1 - w) h_anchor; all candidates share the middle of their one anchor. */
function mixed(h, anchor, w) {
  return h.map((value, i) => w * value + (1 - w) * anchor[i % anchor.length]);
}

/**
 * Samples k candidates of one anchor, step by step.
 *
 * @param networks  what `load` of networks.js gives: `encode(x, t)` and `decode(features)`.
 * @param anchor  the anchor's clean image.
 * @param settings
 *   w: share of the noise branch in the middle; 1 is plain sampling.
 *   below: the anchor takes part at t < below.
 *   silent: whether the middle is set to zero instead.
 *   steps: of the sampler, a divisor of 1000.
 *   eta: 0 adds no noise on the way; 1 adds as much as DDPM.
 *   k: candidates.
 * @param noise  `branch(n)` and `anchor(n)` give the next n standard normal numbers.
 * @yields {{t, clean}} after each step: the clean images that it predicts. The last are the samples.
 */
export async function* interpolate(networks, anchor, settings, noise) {
  const { w, below, silent, steps, eta, k } = settings;
  let x = noise.branch(k * anchor.length);
  for (let t = T - 1; t >= 0; t -= T / steps) {
    const features = await networks.encode(x, t);
    if (silent) {
      features.h.fill(0);
    } else if (w < 1 && t < below) {
      const other = await networks.encode(noised(anchor, noise.anchor(anchor.length), t), t);
      features.h = mixed(features.h, other.h, w);
    }
    const eps = await networks.decode(features);

    const now = alphaBar[t];
    const next = t >= T / steps ? alphaBar[t - T / steps] : 1;
    const sigma = eta * Math.sqrt(((1 - next) / (1 - now)) * (1 - now / next));
    const clean = x.map((value, i) => {
      const predicted = (value - Math.sqrt(1 - now) * eps[i]) / Math.sqrt(now);
      return Math.min(1, Math.max(-1, predicted));
    });
    const fresh = eta > 0 ? noise.branch(x.length) : null;
    const rest = Math.sqrt(1 - next - sigma * sigma);
    x = clean.map((value, i) => {
      return Math.sqrt(next) * value + rest * eps[i] + (fresh ? sigma * fresh[i] : 0);
    });
    yield { t, clean };
  }
}
