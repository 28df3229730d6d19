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
    keys = PROGRAMS[program] | {"what", "baseline", "ablation", "machine", "versions", "command", "seconds_of_benchmark"}
    assert keys <= result.keys()
    for key in keys & {"ratio_fp32", "ratio_loader"}:
        low, high = result[f"{key}_range"]
        assert 0 < low <= result[key] <= high
    assert result["ablation"][0]["ratio"]["median"] == 1  # the authors' way
    assert result["machine"].keys() == {"cpu", "cores", "threads", "bf16"}
    assert result["command"] == f"python benchmarks/{program}.py --quick"


def test_quality_of_every_way_of_making_candidates(benchmark, tmp_path, monkeypatch):
    monkeypatch.setenv("CLSP_HOME", str(tmp_path))
    path = benchmark("report").write("candidate_quality", benchmark("candidate_quality").measure, True, tmp_path)
    ways = json.loads(path.read_text())["ways"]
    assert len(ways) >= 4 and len({(way["frechet"], way["diversity"]) for way in ways}) == len(ways)
    assert all(0 <= way["agreement"] <= 1 and way["frechet"] > 0 and way["diversity"] > 0 for way in ways)


def test_frechet_distance_of_a_shift_and_of_a_scale(benchmark):
    frechet = benchmark("candidate_quality").frechet
    x = np.random.default_rng(0).normal(size=(500, 4))
    assert frechet(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet(x + [3, 4, 0, 0], x) == pytest.approx(25)
    # Twice as wide about the same mean: tr(4 C + C - 2 sqrt(4 C C)) = tr(C).
    assert frechet(x.mean(0) + 2 * (x - x.mean(0)), x) == pytest.approx(np.trace(np.cov(x.T)))


def test_memory_and_time_of_banks_of_growing_size(benchmark, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = json.loads(
        benchmark("report").write("bank_memory", benchmark("bank_memory").measure, True, tmp_path).read_text()
    )["sizes"]
    assert [row["anchors"] for row in sizes] == [1000, 2000]
    assert all(row["fill_us_an_anchor"] > 0 and row["read_us_an_anchor"] > 0 for row in sizes)


def test_laptop_times_every_notebook_from_an_empty_store_and_again(benchmark, tmp_path, monkeypatch):
    monkeypatch.setenv("CLSP_HOME", str(tmp_path))
    result = json.loads(benchmark("report").write("laptop", benchmark("laptop").measure, True, tmp_path).read_text())
    (notebook,) = result["notebooks"]
    assert notebook["name"] == "01_train_diffusion" and 100 < notebook["peak_mb"] < 6000
    assert notebook["seconds"] == result["seconds"] > 0 and notebook["seconds_again"] == result["seconds_again"] > 0
    with pytest.raises(SystemExit, match=f"{tmp_path}/artifacts holds results"):
        benchmark("laptop").measure(True)


def test_readme_shows_the_times_and_the_memory_that_were_measured():
    measured = json.loads((FOLDER / "results" / "laptop.json").read_text())
    readme = (FOLDER.parent / "README.md").read_text()
    for notebook in measured["notebooks"]:
        (row,) = [line for line in readme.splitlines() if f"notebooks/{notebook['name']}.ipynb" in line and line.startswith("|")]
        cells = [cell.strip() for cell in row.split("|")]
        assert f"{notebook['seconds']:.0f}" in cells and f"{notebook['peak_mb'] / 1000:.1f}" in cells


@pytest.mark.parametrize("program", [path.stem for path in sorted((FOLDER / "results").glob("*.json"))])
def test_committed_result_is_a_full_run(program):
    result = json.loads((FOLDER / "results" / f"{program}.json").read_text())
    assert result["command"] == f"python benchmarks/{program}.py"
    other = {"laptop": {"seconds", "notebooks"}, "candidate_quality": {"ways"}, "bank_memory": {"sizes"}}
    assert (other.get(program) or PROGRAMS[program] | {"ratio_bf16"}) <= result.keys()
