"""The named profiles: what differs from the defaults of the settings, section by section.

Values only. A section is a stage (`pipeline.stages`), a method's settings (`config.methods`), or
`study`; "pretrain" holds for all contrastive methods. A course may well edit this file.
"""

from typing import Any

Values = dict[str, Any]

# What judges candidates has to name digits in any colours and at low contrast.
_ANY_COLOUR = {
    "crop_area": (0.6, 1.0), "brightness": 0.5, "contrast": 0.9, "saturation": 0.9, "hue": 0.5,
    "p_jitter": 1.0, "p_grey": 0.3,
}  # fmt: skip

LAPTOP: Values = {
    # w = 0.4 was best on validation: its candidates have more varied backgrounds, and most keep the
    # digit.
    "candidates": {"mix_weight": 0.4},
    "moco": {"third_view": {"weight": 0.5}},
    "classifier": {
        "epochs": 25, "batch": 256, "backbone": {"stem_stride": 1}, "views": _ANY_COLOUR,
    },
}  # fmt: skip

_SMALL = {"epochs": 2, "batch": 64, "backbone": {"layers": (1, 1), "width": 16}}
SMOKE: Values = {
    "data": {"limit": 256},
    "diffusion": {"unet": {"channels": (16, 32)}, "steps": 30, "batch": 32, "warmup": 5},
    "candidates": {"k": 2, "steps": 4},
    "class_candidates": {"k": 2, "steps": 4},
    "pretrain": {**_SMALL, "queue": 128},
    "classifier": _SMALL,
    "probe": {"epochs": 5, "neighbours": (5, 10)},
    "study": {
        "samples": 32, "steps": 4, "mix_weights": (0.0, 0.1, 0.5, 1.0), "tsne": 200, "seeds": 2,
    },
}  # fmt: skip

# Settings that the authors report, where they do; `gpu` is the same with less of everything.
_PHOTOGRAPHS = {"crop_area": (0.08, 1.0), "p_flip": 0.5}
_RESNET18 = {
    "layers": (2, 2, 2, 2), "width": 64, "stem_stride": 1, "hidden": 4096, "projection": 256,
}  # fmt: skip
_CANDIDATES = {"k": 8, "steps": 100, "eta": 0.1, "batch": 64}
PAPER: Values = {
    "data": {"name": "cifar10", "size": 32},
    "diffusion": {
        "unet": {
            "channels": (128, 256, 256, 256), "layers": 2, "attention": (16,), "dropout": 0.1,
            "groups": 32,
        },
        "steps": 781_250, "batch": 128, "lr": 2e-4, "weight_decay": 0.0, "warmup": 5000,
        "ema_decay": 0.9999, "snr_gamma": 0.0, "second_noise": 0.0, "silent_middle": 0.0,
        "flip": True,
    },
    "candidates": _CANDIDATES,
    "class_candidates": _CANDIDATES,
    "pretrain": {
        "backbone": _RESNET18, "views": _PHOTOGRAPHS, "epochs": 1000, "batch": 1024, "lr": 0.5,
        "warmup": 10, "third_view": {"ramp": 0.0}, "queue": 65536, "watch_every": 10,
    },
    "moco": {
        "batch": 512, "lr": 0.3, "queue": 32768, "third_view": {"weight": 0.5},
        "views": {"saturation": 0.2, "p_solarize": 0.2},
    },
    "classifier": {
        "backbone": _RESNET18, "views": {**_PHOTOGRAPHS, "crop_area": (0.5, 1.0)}, "epochs": 100,
        "batch": 256, "lr": 0.1, "weight_decay": 5e-4,
    },
    "study": {
        "samples": 1000, "steps": 100, "sweep_k": 8,
        "methods": (
            "SimCLR", "third view", "CLSP-SimCLR", "class positives", "SupCon", "NNCLR", "All4One",
            "MoCoV2", "CLSP-MoCoV2",
        ),
    },
}  # fmt: skip
GPU: Values = {
    **PAPER,
    "diffusion": {**PAPER["diffusion"], "source": "google/ddpm-cifar10-32"},
    "candidates": {"k": 4, "steps": 20, "batch": 64},
    "class_candidates": {"k": 4, "steps": 20, "batch": 64},
    "pretrain": {**PAPER["pretrain"], "epochs": 200, "batch": 512},
    "classifier": {**PAPER["classifier"], "epochs": 30},
    "study": {"samples": 500, "steps": 20, "sweep_k": 4},
}

PROFILES = {"smoke": SMOKE, "laptop": LAPTOP, "gpu": GPU, "paper": PAPER}
