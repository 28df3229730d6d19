"""Benchmarks: what they compare with is the same computation, and each writes its file."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from clsp_utils.config import UNetShape
from clsp_utils.data import to_diffusion_range, to_uint8
from clsp_utils.diffusion import BETAS, build_unet, sampling
from clsp_utils.positives import interpolate
from clsp_utils.runtime import generator

FOLDER = Path(__file__).parents[2] / "benchmarks"
PROGRAMS = {
    "candidates": {"ratio_fp32"},
    "contrastive_step": {"ratio_fp32", "ratio_loader"},
    "linear_evaluation": {"ratio_fp32", "accuracy"},
    "diffusion_step": {"ratio_fp32", "loss"},
}


COMMITTED = [path.stem for path in sorted((FOLDER / "results").glob("*.json"))]


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a module of `benchmarks/`, which is no package."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return build_unet(UNetShape(channels=(8, 16), groups=4), 8).eval()


def test_authors_sampler_without_an_anchor_is_ddim(benchmark, unet):
    noise = torch.randn(3, 3, 8, 8, generator=generator(0))
    found = benchmark("authors").interpolate(
        unet, noise, noise, 1.0, 10, 0.1, generator(1), generator(2)
    )
    scheduler = DDIMScheduler(**BETAS, timestep_spacing="trailing", clip_sample=False)
    scheduler.set_timesteps(10)
    g, x = generator(1), noise
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(unet(x, t).sample, t, x, eta=0.1, generator=g).prev_sample
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("w", [0.0, 0.1])
def test_authors_candidates_are_the_package_s(benchmark, unet, monkeypatch, w):
    unclipped = {"clip_sample": False}
    monkeypatch.setattr(sampling, "DDIMScheduler", lambda **k: DDIMScheduler(**k | unclipped))
    anchors = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    ours = interpolate(unet, anchors, w, 1000, 1, 10, 0.1, 7, "fp32")[:, 0]
    g = generator(7, "noise branch")
    noise = torch.randn(4, 3, 8, 8, generator=g)
    x = to_diffusion_range(torch.from_numpy(anchors))
    of_anchor = generator(7, "anchor noise")
    theirs = benchmark("authors").interpolate(unet, x, noise, w, 10, 0.1, g, of_anchor)
    theirs = to_uint8(theirs).numpy()
    assert np.abs(theirs.astype(int) - ours).max() <= 1  # rounding
    assert (theirs == ours).mean() > 0.99


def quick_run(benchmark, program, folder):
    path = benchmark("report").write(program, benchmark(program).measure, True, folder)
    return json.loads(path.read_text())


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_writes_its_file(benchmark, tmp_path, program):
    result = quick_run(benchmark, program, tmp_path)
    always = {"what", "baseline", "ablation", "machine", "versions", "command"}
    assert PROGRAMS[program] | always | {"seconds_of_benchmark"} <= result.keys()
    for key in PROGRAMS[program] & {"ratio_fp32", "ratio_loader"}:
        low, high = result[f"{key}_range"]
        assert 0 < low <= result[key] <= high
    assert result["ablation"][0]["ratio"]["median"] == 1  # the authors' way
    assert result["machine"].keys() == {"cpu", "cores", "threads", "bf16"}
    assert result["command"] == f"python benchmarks/{program}.py --quick"


def test_quality_of_every_way_of_making_candidates(benchmark, home):
    ways = quick_run(benchmark, "candidate_quality", home)["ways"]
    assert len(ways) >= 4 and len({(way["frechet"], way["diversity"]) for way in ways}) == len(ways)
    assert all(0 <= way["agreement"] <= 1 for way in ways)
    assert all(way["frechet"] > 0 and way["diversity"] > 0 for way in ways)


def test_memory_and_time_of_banks_of_growing_size(benchmark, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = quick_run(benchmark, "bank_memory", tmp_path)["sizes"]
    assert [row["anchors"] for row in sizes] == [1000, 2000]
    assert all(row["fill_us_an_anchor"] > 0 and row["read_us_an_anchor"] > 0 for row in sizes)


def test_laptop_times_every_notebook_from_an_empty_store_and_again(benchmark, home):
    result = quick_run(benchmark, "laptop", home)
    (notebook,) = result["notebooks"]
    assert notebook["name"] == "01_train_diffusion" and 100 < notebook["peak_mb"] < 6000
    assert notebook["seconds"] == result["seconds"] > 0
    assert notebook["seconds_again"] == result["seconds_again"] > 0
    with pytest.raises(SystemExit, match=f"{home}/artifacts holds results"):
        benchmark("laptop").measure(True)


@pytest.mark.parametrize("program", COMMITTED)
def test_committed_result_is_a_full_run(program):
    result = json.loads((FOLDER / "results" / f"{program}.json").read_text())
    assert result["command"] == f"python benchmarks/{program}.py"
    other = {
        "laptop": {"seconds", "notebooks"},
        "candidate_quality": {"ways"},
        "bank_memory": {"sizes"},
    }
    assert (other.get(program) or PROGRAMS[program] | {"ratio_bf16"}) <= result.keys()
