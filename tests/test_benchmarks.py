"""Benchmarks: what they compare with is the same computation, and each writes its file."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from clsp_utils import candidates, diffusion, training
from clsp_utils.config import UNet

FOLDER = Path(__file__).parents[1] / "benchmarks"
PROGRAMS = {
    "candidates": {"ratio_fp32"},
    "contrastive_step": {"ratio_fp32", "ratio_loader"},
    "linear_evaluation": {"ratio_fp32", "accuracy"},
    "diffusion_step": {"ratio_fp32", "loss"},
}


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a module of `benchmarks/`, which is no package."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return diffusion.build_unet(UNet(channels=(8, 16), groups=4), 8).eval()


def seeded(*names):
    return training.generator(*names)


def test_authors_sampler_without_an_anchor_is_ddim(benchmark, unet):
    noise = torch.randn(3, 3, 8, 8, generator=seeded(0))
    found = benchmark("authors").interpolate(unet, noise, noise, 1.0, 10, 0.1, seeded(1), seeded(2))
    scheduler = DDIMScheduler(**diffusion.NOISE, timestep_spacing="trailing", clip_sample=False)
    scheduler.set_timesteps(10)
    g, x = seeded(1), noise
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(unet(x, t).sample, t, x, eta=0.1, generator=g).prev_sample
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("w", [0.0, 0.1])
def test_authors_candidates_are_the_package_s(benchmark, unet, monkeypatch, w):
    monkeypatch.setattr(diffusion, "DDIMScheduler", lambda **k: DDIMScheduler(**k | {"clip_sample": False}))
    anchors = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    ours = candidates.interpolate(unet, anchors, w, 1, 10, 0.1, 7, "fp32")[:, 0]
    g = seeded(7, "noise branch")
    noise = torch.randn(4, 3, 8, 8, generator=g)
    x = diffusion.to_diffusion_range(torch.from_numpy(anchors))
    theirs = benchmark("authors").interpolate(unet, x, noise, w, 10, 0.1, g, seeded(7, "anchor noise"))
    theirs = diffusion.to_uint8(theirs).numpy()
    assert np.abs(theirs.astype(int) - ours).max() <= 1  # rounding
    assert (theirs == ours).mean() > 0.99


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_writes_its_file(benchmark, tmp_path, program):
    path = benchmark("report").write(program, benchmark(program).measure, True, tmp_path)
    result = json.loads(path.read_text())
    keys = PROGRAMS[program] | {"what", "baseline", "ablation", "machine", "versions", "command", "seconds"}
    assert keys <= result.keys()
    for key in keys & {"ratio_fp32", "ratio_loader"}:
        low, high = result[f"{key}_range"]
        assert 0 < low <= result[key] <= high
    assert result["ablation"][0]["ratio"]["median"] == 1  # the authors' way
    assert result["machine"].keys() == {"cpu", "cores", "threads", "bf16"}
    assert result["command"] == f"python benchmarks/{program}.py --quick"


@pytest.mark.parametrize("program", [path.stem for path in sorted((FOLDER / "results").glob("*.json"))])
def test_committed_result_is_a_full_run(program):
    result = json.loads((FOLDER / "results" / f"{program}.json").read_text())
    assert result["command"] == f"python benchmarks/{program}.py"
    assert PROGRAMS[program] | {"ratio_bf16"} <= result.keys()
