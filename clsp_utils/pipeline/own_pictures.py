"""From a folder of pictures to settings that fit it, and from an encoder to what is taken home."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clsp_utils.contrastive import ImageEncoder, load_exported, save_exported
from clsp_utils.data import DataError, Survey, fingerprint, printable
from clsp_utils.pipeline.companion import Companion
from clsp_utils.pipeline.profile import Profile, as_mapping
from clsp_utils.pipeline.stages import Pretrained

FEWEST = 32  # pictures from which there is something to learn
# What makes any settings those of a folder.
OF_A_FOLDER = {"data.name": "folder", "data.wnids": "", "data.normalisation": "computed"}
SIDES = {"laptop": (16, 32), "gpu": (32, 64), "paper": (32, 64)}  # pixels that a profile can afford
USUAL = {"laptop": 3891, "gpu": 50_000, "paper": 50_000}  # anchors that a profile was made for
AT_LEAST, AT_MOST = 300, 10  # steps of diffusion; times the epochs of a profile
PASSES = 100  # of a diffusion model over few pictures; more teach it these by heart
CANDIDATES = 4  # per anchor, where there are few


def fitting(profile: str, found: Survey) -> dict[str, Any]:
    """Settings that fit a folder, where those of the profile are for another number of images.

    * Pictures get the largest size that most of them fill and the profile can afford; at 32 pixels
      on a CPU, the UNet has a third resolution, so that its middle has as many pixels as at 16.
    * The diffusion model passes over the pictures as often as the profile says, or `PASSES` times
      if that is more, in at most the profile's steps. Few pictures: fewer steps.
    * The bank has up to `CANDIDATES` per anchor, as long as it stays as large as the usual one.
    * Encoders see as many views as they usually do, in more epochs (at most `AT_MOST` times) of
      smaller batches: an epoch of few pictures has few steps.

    Args:
        profile: its name; `smoke` stays as it is.
        found: what lies in the folder.

    Returns:
        Overrides by dotted names.

    Raises:
        DataError: there are too few pictures.
    """
    used = found.used
    if len(used) < FEWEST:
        raise DataError(
            f"{printable(found.root)}: {len(used)} picture(s) can be used, where {FEWEST} are the "
            f"fewest to learn from."
        )
    if profile not in USUAL:
        return {}
    plain, usual, sides = Profile(profile), USUAL[profile], SIDES[profile]
    n = round(0.8 * len(used))  # anchors, about: the others are held out
    side = used[["width", "height"]].min(axis=1).median()
    size = max((one for one in sides if one <= side), default=sides[0])
    cfg, epochs = plain.diffusion, min(AT_MOST, max(1.0, usual / n))
    passes = max(PASSES, cfg.steps * cfg.batch / usual)
    steps = int(min(cfg.steps, max(AT_LEAST, passes * n / cfg.batch)))
    settings = {
        "data.size": size,
        "diffusion.source": "",
        "diffusion.steps": steps,
        "diffusion.warmup": min(cfg.warmup, steps // 10),
        "candidates.k": max(plain.candidates.k, min(CANDIDATES, usual // n)),
    }
    for section in ("pretrain", "classifier"):
        own = plain.simclr if section == "pretrain" else plain.classifier
        settings[f"{section}.batch"] = _batch(own.batch, n)
        settings[f"{section}.epochs"] = round(own.epochs * epochs)
    if profile == "laptop" and size == 32:
        settings["diffusion.unet.channels"] = (32, 64, 64)
    return settings


def _batch(most: int, n: int) -> int:
    """A half, a quarter and so on of `most`, so that an epoch of n images has a few steps."""
    while most > 16 and 4 * most > n:
        most //= 2
    return most


def companion_of(
    found: Survey, profile: str, seed: int, overrides: Mapping[str, Any] | str
) -> Companion:
    """A companion whose images are a folder's pictures, with the settings that fit them.

    Args:
        overrides: settings that count more.

    Raises:
        ConfigError: as of `Companion`.
        DataError: there are too few pictures.
    """
    settings = {**fitting(profile, found), **as_mapping(overrides), **OF_A_FOLDER}
    return Companion(profile, seed, settings, str(found.root))


def export_encoder(
    companion: Companion, folder: Path, method: str, scores: dict[str, Any] | None = None
) -> ImageEncoder:
    """Writes an encoder of a companion to a folder (see `contrastive.save_exported`).

    Args:
        scores: what the card says of how good it is; None where there are no labels.

    Returns:
        The encoder as another program reads it.
    """
    stage, data = companion.stage(Pretrained, method=method), companion.data
    backbone = companion.pipeline.get(stage).backbone
    bank = stage.bank
    facts = {
        "training": {"key": stage.request.key, **stage.request.config},
        "candidates": bank and bank.request.config,
        "diffusion": bank and bank.unet.request.config,
        "data": {
            "pictures": len(data.train),
            "held_out": len(data.test),
            **fingerprint(data.train, data.test),
        },
        "scores": scores,
    }
    encoder = ImageEncoder(backbone, data.statistics, data.size)
    save_exported(encoder, stage.settings.backbone, folder, facts)
    return load_exported(folder)
