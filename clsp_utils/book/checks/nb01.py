"""Checks of notebook 01: noising, the loss over t, a DDIM step, and whether samples are memory."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DModel
from torch import Tensor

from clsp_utils.book.checks import Wrong, compare, entries
from clsp_utils.data import Images, to_uint8
from clsp_utils.diffusion import min_snr_weight, noise_schedule, sample
from clsp_utils.evaluation import background_match
from clsp_utils.runtime import generator

FOLLOWS = 0.15  # background match above which a neighbour still follows the background


def noising(answer: Callable) -> str:
    """01.1, `(x0, noise, t, alpha_bar) -> x_t` with another t for each image."""
    x0, noise = torch.randn(2, 4, 3, 4, 4, generator=generator("01.1"))  # as many images as columns
    t, alpha_bar = torch.tensor([10, 200, 400, 900]), noise_schedule().alphas_cumprod
    row, a = alpha_bar[t], alpha_bar[t].view(-1, 1, 1, 1)
    mistakes = {
        "alpha_bar[t], of shape (B,), was stretched over the columns of the images: give it the "
        "shape (B, 1, 1, 1)": row.sqrt() * x0 + (1 - row).sqrt() * noise,
        "the square roots are missing": a * x0 + (1 - a) * noise,
        "signal and noise are exchanged": a.sqrt() * noise + (1 - a).sqrt() * x0,
        "it is the square root of 1 - alpha_bar": a.sqrt() * x0 + (1 - a.sqrt()) * noise,
        "each image has a t of its own": a[0].sqrt() * x0 + (1 - a[0]).sqrt() * noise,
    }
    right = noise_schedule().add_noise(x0, noise, t)
    compare(answer(x0, noise, t, alpha_bar), right, mistakes)
    return "what the library's scheduler does, each image at its own t"


def names(
    answer: Any, noised: np.ndarray, labels: np.ndarray, times: Sequence[int], companion: Any
) -> str:
    """01.2, t -> labels that a person sees in the images of a row.

    Args:
        noised: uint8 `(rows, n, H, W, 3)`; labels: `(rows * n,)`, row by row.
        times: t of each row.
    """
    rows, n = noised.shape[:2]
    truth = labels.reshape(rows, n)
    said = [_labels(t, own, n) for t, own in zip(times, entries(answer, *times), strict=True)]
    if (labels < 0).any():
        raise Wrong("not all of these images have a label, so nobody can say who is right")
    seen = companion.judge.classify(noised.reshape(-1, *noised.shape[2:])).reshape(rows, n)
    lines = (
        f"  t = {t}: you {np.sum(own == right)} of {n}, "
        f"the classifier {np.sum(machine == right)} of {n}"
        for t, own, right, machine in zip(times, said, truth, seen, strict=True)
    )
    return "\n".join([f"chance is 1 in {companion.data.train.n_classes_present}", *lines])


def _labels(t: int, said: Any, n: int) -> np.ndarray:
    """The n labels of a row, `(n,)`; digits of a text count as well."""
    try:
        labels = np.array([int(label) for label in said])
    except (TypeError, ValueError):
        raise Wrong(f"t = {t}: a list of {n} labels is expected") from None
    if isinstance(said, (set, frozenset)):
        raise Wrong(f"t = {t}: a set has no order; give a list of {n} labels")
    if len(labels) != n:
        raise Wrong(f"t = {t}: {len(labels)} labels for {n} images")
    return labels


def loss_shares(answer: Any, errors: Tensor, t: Tensor) -> str:
    """01.3, "plain" and "min-SNR": the share of the loss that comes from each quarter of t.

    Args:
        errors: `(N,)` squared errors at time steps t `(N,)`.
    """
    plain, weighted = entries(answer, "plain", "min-SNR")

    def by_quarter(x: Tensor) -> np.ndarray:
        return np.array([x[quarter == t // 250].sum() for quarter in range(4)], float)

    sums = {
        "plain": by_quarter(errors),
        "min-SNR": by_quarter(errors * min_snr_weight(noise_schedule(), t, 5.0)),
    }
    shares, counts = {name: x / x.sum() for name, x in sums.items()}, by_quarter(torch.ones(len(t)))
    other = {"plain": "min-SNR", "min-SNR": "plain"}
    snr = noise_schedule().alphas_cumprod[t] / (1 - noise_schedule().alphas_cumprod[t])
    for name, found in (("plain", plain), ("min-SNR", weighted)):
        right = shares[name]
        mistakes = {
            f"these are the shares of {other[name]}": shares[other[name]],
            "divide by the sum over all four quarters": sums[name],
            "these are means; divide each by the sum of all four": sums[name] / counts,
            "give each quarter's own share, not the sum up to there": right.cumsum(),
        }
        if name == "min-SNR":
            clamped = by_quarter(errors * snr.clamp(max=5))
            mistakes["the weight is min(SNR, 5) divided by SNR"] = clamped / clamped.sum()
        percent = "give shares that sum to 1, not percent"
        compare(found, right, mistakes, within=0.03, percent=percent, part=name)
    told = (f"{name} {' '.join(f'{x:.0%}' for x in share)}" for name, share in shares.items())
    return f"from small t to large: {'; '.join(told)}"


def _step(x: Tensor, eps: Tensor, a_t: Tensor, a_s: Tensor, clip: bool = True) -> Tensor:
    x0 = (x - (1 - a_t).sqrt() * eps) / a_t.sqrt()
    return a_s.sqrt() * (x0.clamp(-1, 1) if clip else x0) + (1 - a_s).sqrt() * eps


@torch.inference_mode()
def ddim_step(answer: Callable, unet: UNet2DModel, noise: Tensor) -> str:
    """01.4, `(x, eps, a_t, a_s) -> x_s`, with x0 clipped to [-1, 1].

    Args:
        noise: `(B, 3, H, W)`, from which the package's sampler and this one start.
    """
    g, alpha_bar = generator("01.4"), noise_schedule().alphas_cumprod
    x0 = 2 * torch.rand(2, 3, 4, 4, generator=g) - 1
    eps = torch.randn(x0.shape, generator=g)
    a_t, a_s, one = alpha_bar[500], alpha_bar[200], torch.tensor(1.0)
    x = a_t.sqrt() * x0 + (1 - a_t).sqrt() * eps
    mistakes = {
        "alpha_bar at t and at s are exchanged: x is at t and goes to s": _step(x, eps, a_s, a_t),
        "that is the guess of x0: noise it again, to s": x0,
        "at s the noise is weaker than at t: sqrt(1 - a_s)": (
            a_s.sqrt() * x0 + (1 - a_t).sqrt() * eps
        ),
        "the square roots are missing where x0 and eps meet": a_s * x0 + (1 - a_s) * eps,
        "clip the guess of x0, not the noisy image": _step(x, eps, a_t, a_s).clamp(-1, 1),
        "x0 follows from x minus the noise, not plus": _step(x, -eps, a_t, a_s),
        "what is left without the noise is sqrt(a_t) x0: divide by it": (
            a_s.sqrt() * (a_t.sqrt() * x0).clamp(-1, 1) + (1 - a_s).sqrt() * eps
        ),
        "clip the guess of x0 to [-1, 1], not to [0, 1]": (
            a_s.sqrt() * x0.clamp(0, 1) + (1 - a_s).sqrt() * eps
        ),
    }
    found, again = (torch.as_tensor(answer(x, eps, a_t, a_s)) for _ in range(2))
    if not torch.equal(found, again):
        raise Wrong("two calls come to two results: noise the guess with eps, not with new noise")
    compare(found, _step(x, eps, a_t, a_s), mistakes)
    compare(
        answer(x, eps, a_t, one), x0, otherwise="with the true noise, a step to a_s = 1 gives x0"
    )
    beyond = a_t.sqrt() * 2 * x0 + (1 - a_t).sqrt() * eps
    clipped = (beyond - a_t.sqrt() * (2 * x0).clamp(-1, 1)) / (1 - a_t).sqrt()
    mistakes = {
        "the guess of x0 is not clipped to [-1, 1]": _step(beyond, eps, a_t, a_s, clip=False),
        "leave eps as it was predicted when x0 is clipped": (
            a_s.sqrt() * (2 * x0).clamp(-1, 1) + (1 - a_s).sqrt() * clipped
        ),
    }
    compare(answer(beyond, eps, a_t, a_s), _step(beyond, eps, a_t, a_s), mistakes)
    x, times = noise.to(unet.device), range(999, -1, -100)
    for t in times:
        after = alpha_bar[t - 100] if t > 100 else one
        step = answer(x, unet(x, t).sample, alpha_bar[t].to(x.device), after.to(x.device))
        x = torch.as_tensor(step).to(noise)
    package = sample(unet, noise, len(times), 0.0, generator("01.4"), "fp32")
    off = (to_uint8(x).cpu().int() - package.int()).abs().max().item()
    if off > 1:
        raise Wrong(f"after ten steps the images differ from the package's by {off} grey levels")
    return "true noise gives x0 back, and ten steps the package's samples, within a grey level"


def strokes(answer: Callable, train: Images, test: Images, samples: np.ndarray) -> str:
    """01.5, images uint8 `(N, H, W, 3)` -> features `(N, ...)` that know strokes and no colours.

    Args:
        samples: of the model, uint8 `(M, H, W, 3)`.
    """
    test = test[np.arange(min(256, len(test)))]

    def of(images: np.ndarray) -> Tensor:
        x = torch.as_tensor(answer(images)).float()
        if len(x) != len(images):
            raise Wrong(f"{len(images)} images came in and {len(x)} rows came out")
        return x.flatten(1)

    own = of(train.images)
    if not torch.isfinite(own).all():
        raise Wrong("some features are not finite: was there a division by 0?")
    if (own.std(0) < 1e-8).all():
        raise Wrong("all images come to the same features, so every image is a copy")
    distance, index = torch.cdist(of(test.images), own, p=1).min(1)
    pixels = [torch.from_numpy(part.images).flatten(1).float() for part in (test, train)]
    by_pixels = torch.cdist(*pixels, p=1).argmin(1)

    def seen(rows: Tensor) -> tuple[float, float]:
        """Background match and share of the same class of the neighbours."""
        match = background_match(test.images, train.images[rows.numpy()])
        return match, float((train.labels[rows] == test.labels).mean())

    (match, same), (match_before, same_before) = seen(index), seen(by_pixels)
    if match > FOLLOWS:
        raise Wrong(
            f"the neighbour still follows the background (match {match:.2f}; by pixels "
            f"{match_before:.2f}): lightness is a colour, too"
        )
    if same < same_before:
        raise Wrong(
            f"the strokes are lost as well: the neighbour is of the same class in {same:.0%}, by "
            f"pixels in {same_before:.0%}"
        )
    to_sample = torch.cdist(of(samples), own, p=1).min(1)[0]
    return (
        f"background match of neighbours {match:.2f} (pixels {match_before:.2f}), same class "
        f"{same:.0%} ({same_before:.0%}); samples lie {to_sample.mean() / distance.mean():.2f} "
        f"times as far from training strokes as test images do"
    )


CHECKS: dict[str, Callable[..., str]] = {
    "01.1": noising,
    "01.2": names,
    "01.3": loss_shares,
    "01.4": ddim_step,
    "01.5": strokes,
}
