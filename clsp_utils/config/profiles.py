"""The named profiles: what differs from the defaults of the settings, section by section.

Values only. A section is a stage (`pipeline.stages`), a method's settings (`config.methods`), or
`study`; "pretrain" holds for all contrastive methods, and the conditional models' sections, such as
"class_diffusion", follow "diffusion".
A course may well edit this file.
"""

from typing import Any

from clsp_utils.config.settings import Diffusion

Values = dict[str, Any]

# What judges candidates has to name digits in any colours and at low contrast.
_ANY_COLOUR = {
    "crop_area": (0.6, 1.0), "brightness": 0.5, "contrast": 0.9, "saturation": 0.9, "hue": 0.5,
    "p_jitter": 1.0, "p_grey": 0.3,
}  # fmt: skip

# A conditional model goes on from the unconditional one, so that a quarter of its steps is enough,
# if its condition, which begins at zero, learns faster than the rest.
_GOES_ON = {"from_unconditional": True, "steps": Diffusion().steps // 4, "condition_lr": 20.0}
LAPTOP: Values = {
    # The best pair on validation: the digit kept more often, and less of the background, than with
    # the anchor at all steps.
    "candidates": {"mix_below": 400},
    "class_diffusion": _GOES_ON,
    "cluster_diffusion": _GOES_ON,
    "representation_diffusion": {**_GOES_ON, "steps": Diffusion().steps // 2},
    "class_candidates": {"guidance": 3.0},
    "cluster_candidates": {"guidance": 3.0},
    "rcg_candidates": {"guidance": 3.0},
    "clusters": {"n_clusters": 100},
    "moco": {"third_view": {"weight": 0.5}},
    # With its paper's epsilon of 0.05 SwAV collapses here, and embeddings of a network that changes
    # so fast are soon too old for a queue.
    "swav": {"epsilon": 0.01, "prototypes": 256, "queue_from": 1.0},
    "classifier": {
        "epochs": 25, "batch": 256, "backbone": {"stem_stride": 1},
        "views": _ANY_COLOUR,
    },
    "study": {"clusters": (100,)},  # of ten, a random member has the anchor's digit in 30 %
}  # fmt: skip

_SMALL = {"epochs": 2, "batch": 64, "backbone": {"layers": (1, 1), "width": 16}}
SMOKE: Values = {
    "data": {"limit": 256},
    "diffusion": {"unet": {"channels": (16, 32)}, "steps": 30, "batch": 32, "warmup": 5},
    "representation_diffusion": {"from_unconditional": True},
    "candidates": {"k": 2, "steps": 4},
    "class_candidates": {"k": 2, "steps": 4},
    "rcg_candidates": {"k": 2, "steps": 4},
    "cluster_candidates": {"k": 2, "steps": 4},
    "pretrain": {**_SMALL, "queue": 128},
    "classifier": _SMALL,
    "transfer": {"pictures": (200, 100, 100)},
    "logistic": {"n_c": 2, "iterations": 20},
    "few_labels": {"draws": 2},
    "probe": {"epochs": 5, "neighbours": (5, 10)},
    "samples": {"n": 32, "steps": 2},
    "study": {
        "ancestral_steps": 4,
        "samples": 32, "steps": 4, "mix_weights": (0.0, 0.1, 0.5, 1.0), "tsne": 200, "seeds": 2,
        "clusters": (8,), "purities": (4, 8, 16), "recoloured_pairs": 0.4,
        "view_methods": ("CACR", "SwAV", "CLSP-SwAV", "MCL"),
    },
}  # fmt: skip

# Settings that the authors report, where they do; `gpu` is the same with less of everything. Both
# score encoders by the authors' linear probe, since the numbers stand beside theirs.
_PHOTOGRAPHS = {"crop_area": (0.08, 1.0), "p_flip": 0.5}
_RESNET18 = {
    "layers": (2, 2, 2, 2), "width": 64, "stem_stride": 1, "hidden": 4096, "projection": 256,
}  # fmt: skip
_CANDIDATES = {"k": 8, "steps": 100, "eta": 0.1, "batch": 64}
_CONDITIONAL = {"unet": {"dropout": 0.15}, "steps": 97_000, "lr": 2.5e-4, "beta_end": 0.028}
PAPER: Values = {
    "data": {"name": "cifar10", "size": 32},
    "diffusion": {
        "unet": {
            "channels": (128, 256, 256, 256), "layers": 2, "attention": (16,), "dropout": 0.1,
            "groups": 32,
        },
        "steps": 194_000, "batch": 512, "lr": 2e-4, "weight_decay": 0.0, "warmup": 5000,
        "schedule": "constant", "ema_decay": 0.9999, "snr_gamma": 0.0, "flip": True,
    },
    "class_diffusion": _CONDITIONAL,
    "cluster_diffusion": _CONDITIONAL,
    "representation_diffusion": _CONDITIONAL,
    "candidates": _CANDIDATES,
    "class_candidates": {**_CANDIDATES, "eta": 1.0, "guidance": 1.8},
    "cluster_candidates": {**_CANDIDATES, "eta": 1.0, "guidance": 1.8},
    "rcg_candidates": _CANDIDATES,
    "samples": {"n": 50_000, "steps": 1000, "variance": "fixed_large"},
    "pretrain": {
        "backbone": _RESNET18, "views": _PHOTOGRAPHS, "epochs": 1000, "batch": 1024, "lr": 0.5,
        "warmup": 10, "third_view": {"ramp": 0.0}, "queue": 65536, "watch_every": 10,
    },
    "simclr": {"batch_norm": "first_view"},
    "moco": {
        "batch": 512, "lr": 0.3, "queue": 32768, "third_view": {"weight": 0.5},
        "views": {"saturation": 0.2, "p_solarize": 0.2}, "batch_norm": "per_view",
    },
    "swav": {"prototypes": 3000, "queue": 3840},
    "classifier": {
        "backbone": _RESNET18, "views": {**_PHOTOGRAPHS, "crop_area": (0.5, 1.0)}, "epochs": 100,
        "batch": 256, "lr": 0.1, "weight_decay": 5e-4,
    },
    "probe": {"momentum": 0.0, "standardise": False, "zero_init": False},
    "logistic": {"c_range": (1e-6, 1e5), "n_c": 45, "iterations": 1000},
    "study": {
        "samples": 1000, "steps": 100, "sweep_k": 8, "ancestral_steps": 1000,
        "quality_methods": ("CLSP-SimCLR", "CLSP-MoCoV2"),
        "transfer": (
            "cifar10", "cifar100", "pets", "flowers", "dtd", "caltech101", "food101", "aircraft",
            "cars",
        ),
        "methods": (
            "SimCLR", "third view", "CLSP-SimCLR", "class positives", "SupCon", "NNCLR", "All4One",
            "MoCoV2", "third view MoCoV2", "CLSP-MoCoV2", "class positives MoCoV2",
        ),
    },
}  # fmt: skip
GPU: Values = {
    **PAPER,
    "diffusion": {**PAPER["diffusion"], "source": "google/ddpm-cifar10-32"},
    "candidates": {"k": 4, "steps": 20, "batch": 64},
    "class_candidates": {"k": 4, "steps": 20, "batch": 64, "guidance": 1.8},
    "cluster_candidates": {"k": 4, "steps": 20, "batch": 64, "guidance": 1.8},
    "rcg_candidates": {"k": 4, "steps": 20, "batch": 64},
    "samples": {"n": 10_000},
    # Not the authors' ramp of 0, without which their runs stay collapsed for up to 49 epochs: of
    # 1,000 that costs little, of 200 a quarter.
    "pretrain": {
        **PAPER["pretrain"],
        "epochs": 200,
        "batch": 512,
        "third_view": {"ramp": 0.3},
    },
    "classifier": {**PAPER["classifier"], "epochs": 30},
    "study": {"samples": 500, "steps": 20, "sweep_k": 4},
}

PROFILES = {"smoke": SMOKE, "laptop": LAPTOP, "gpu": GPU, "paper": PAPER}

# What differs on a data set at `paper` alone, of which `gpu` has less.
PAPER_BY_DATA_SET: dict[str, Values] = {"stl10": {"candidates": {"steps": 200}}}

# What differs on a data set, at `gpu` and `paper`; overrides of the user count more. Where the
# authors report nothing (all of ImageNet-100's diffusion model), what holds for CIFAR-10 stays.
_PUBLISHED = {"normalisation": "published"}
_MAX_POOL = {"backbone": {"max_pool": True}}
BY_DATA_SET: dict[str, Values] = {
    "cifar10": {"data": _PUBLISHED, "cacr": {"t_minus": 0.9}},
    "cifar100": {
        "data": _PUBLISHED,
        "diffusion": {"source": "", "batch": 320, "steps": 312_000},
        "class_diffusion": {"batch": 512, "steps": 97_000},
        "cluster_diffusion": {"steps": 156_000},
        "representation_diffusion": {"steps": 156_000},
        "moco": {"third_view": {"weight": 0.2}},
    },
    "stl10": {
        "data": {**_PUBLISHED, "size": 64, "full_size": 96},
        "diffusion": {
            "source": "",
            "flip": False,
            "batch": 200,
            "steps": 500_000,
            "unet": {
                "channels": (128, 256, 384, 512),
                "layers": 3,
                "attention": (32, 16, 8),
                "dropout": 0.15,
            },
        },
        "candidates": {"mix_skips": 3},
        "moco": {"batch": 1024, "third_view": {"weight": 0.4}},
        "pretrain": _MAX_POOL,
        "classifier": _MAX_POOL,
    },
    "imagenet100": {
        "data": {"size": 64, "full_size": 96},
        "diffusion": {"source": ""},
        "pretrain": _MAX_POOL,
        "classifier": _MAX_POOL,
    },
}
