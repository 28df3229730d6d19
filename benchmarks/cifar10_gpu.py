"""CIFAR-10 on one GPU: python benchmarks/cifar10_gpu.py --data FILE --out FOLDER

In parts, each with its minutes (`MINUTES`); half an hour for all but the first two, which measure:

    environment  what the machine is; the fast tests on it; every stage and method once, tiny
    speed        side by side with the authors' way, as shares of the card's bf16 peak; profiles
    diffusion    a UNet of the paper's shape, as many steps as its minutes give
    judge        the classifier that tells whether a candidate kept its class
    look         notebooks 02, 03 and 04 on it: t-SNE and read-outs, masks, sweeps
    bank         one candidate per anchor
    encoders     `METHODS` at equal epochs, some seeds each, scored

A call does what is left of the parts that it names, all by default, and stops by itself after
`--minutes`; the next call goes on from there. What it goes on from lies in build/cifar10 (or where
CLSP_HOME says). FOLDER gets results.tar.gz (tables, figures, report.md) and the averaged weights of
the UNet in pieces, unet.0 and so on: a later run with `--unet FOLDER` takes these, and trains none.

Calls can run side by side, which is worth it while one compiles: encoders that see no candidates
beside the diffusion model, for example. `--methods` and `--seeds` say which encoders a call trains.

FILE is CIFAR-10 as -p data= reads it, for example an .npz. `--label` is how figures and tables call
it: the images at hand may be re-compressed ones.

docs/scale.md says how what a machine lacks gets to it where it reaches no registry.
`--quick` is a dry run of all this on a CPU, with networks of a few thousand weights.
"""

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import authors
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import report
import safetensors.torch
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from report import Way
from torch import nn
from torch.profiler import ProfilerActivity, profile

from clsp_utils.book import FULL, dots, image_grid, save_figure, save_table, set_style
from clsp_utils.config import METHODS as ALL_METHODS
from clsp_utils.config import PROJECT, ConfigError, change, home
from clsp_utils.contrastive import pretrain, training_flops
from clsp_utils.data import ChannelStatistics
from clsp_utils.diffusion import build_unet, train
from clsp_utils.evaluation import holm, interval, paired, score
from clsp_utils.pipeline import (
    Companion,
    DiffusionModel,
    InterpolatedBank,
    Pretrained,
    Samples,
    Scores,
    Stage,
)
from clsp_utils.pipeline.stage import Job
from clsp_utils.positives import interpolate
from clsp_utils.runtime import Checkpoint, OutOfTime, device, to_device

MINUTES = {
    "environment": 2.5, "speed": 8.0, "diffusion": 8.6, "judge": 1.0, "look": 3.0, "bank": 3.0,
    "encoders": 8.0,
}  # fmt: skip
PATIENCE = 1.5  # a part that takes so many times its minutes is cut off
SAVING = 20  # seconds before the end in which a training saves where it is
SAMPLING = 0.5  # minutes of the diffusion model that go to what follows its training
PIECE = 15 * 2**20  # bytes of a file of weights
METHODS = ("SimCLR", "third view", "recoloured third view", "CLSP-SimCLR")
NOTEBOOKS = ("02", "03", "04")
TESTED = ("runtime", "diffusion", "positives", "contrastive", "evaluation", "pipeline")

# A short schedule: what differs from the profile `gpu`.
SETTINGS: dict[str, Any] = {
    "diffusion.source": "", "diffusion.batch": 128, "diffusion.lr": 4e-4, "diffusion.warmup": 500,
    "diffusion.schedule": "cosine", "diffusion.ema_decay": 0.999, "diffusion.snr_gamma": 5.0,
    "candidates.k": 1, "candidates.batch": 500,
    "classifier.epochs": 12,
    "pretrain.epochs": 10, "pretrain.warmup": 1.0, "pretrain.watch_every": 0,
    "study.seeds": 3, "study.methods": METHODS,
    "samples.n": 64,
}  # fmt: skip
_TINY = {"layers": (1,), "width": 8, "hidden": 16, "projection": 8}
QUICK: dict[str, Any] = {
    "data.limit": 400,
    "diffusion.unet.channels": (8, 16), "diffusion.unet.layers": 1, "diffusion.unet.groups": 4,
    "diffusion.unet.attention": (), "diffusion.batch": 16, "diffusion.warmup": 2,
    "candidates.steps": 2, "candidates.batch": 100,
    **{f"{part}.backbone.{k}": v for part in ("pretrain", "classifier") for k, v in _TINY.items()},
    **{f"{part}.backbone.stem_stride": 2 for part in ("pretrain", "classifier")},
    "pretrain.batch": 100, "pretrain.epochs": 1, "classifier.batch": 100, "classifier.epochs": 2,
    "probe.epochs": 3, "study.seeds": 2,
    "study.samples": 40, "study.steps": 2, "study.mask_steps": 2, "study.tsne": 60,
    "study.mix_weights": (0.1, 1.0), "study.mix_times": (400, 1000), "study.k_shown": 2,
    "samples.n": 32, "samples.steps": 2,
}  # fmt: skip


def steps_that_fit(minutes: float, seconds_a_step: float) -> int:
    """Steps of a training, in round numbers; a twentieth of the time goes to its checkpoints."""
    steps = int(0.95 * 60 * minutes / seconds_a_step)
    return max(1, steps - steps % (100 if steps > 1000 else 1))


def step_seconds(train: Callable[[int], object], n: int) -> float:
    """Seconds of one step of a training of n steps: the median of its second half.

    The compiling at its beginning does not count, nor what other work on the machine delays for a
    moment. A difference of two runs would tell of that alone, and once told of less than nothing.
    """
    ends, after_step = [], Checkpoint.after_step

    def after(self: Checkpoint, *rest: Any) -> None:
        ends.append(time.perf_counter())
        after_step(self, *rest)

    with mock.patch.object(Checkpoint, "after_step", after):
        train(n)
    return float(np.median(np.diff(ends[n // 2 :])))


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """What runs inside ends with `OutOfTime`; a training saves before."""

    def ring(*_: Any) -> None:
        raise OutOfTime("Stopped by the clock; what was finished is kept.")

    Checkpoint.stop_after = time.monotonic() + max(0.0, seconds - SAVING)
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(0.1, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        Checkpoint.stop_after = float("inf")


class Run:
    """What the parts share: settings, the plan that outlives a call, and where results go."""

    def __init__(self, data: str, label: str, quick: bool):
        self.data, self.label, self.quick = data, label, quick
        self.path, self.results, self.unet = home("plan.json"), home("results"), home("unet")
        self.results.mkdir(parents=True, exist_ok=True)
        self.made: tuple[dict[str, Any], Companion] | None = None
        self.methods, self.seeds = METHODS, tuple(range(self.settings["study.seeds"]))

    @property
    def plan(self) -> dict[str, Any]:
        """What was measured once holds for all calls, since it is part of the results' keys."""
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def done(self, part: str) -> dict[str, Any]:
        """Minutes that a part took so far, and how it ended."""
        path = home(f"part_{part}.json")
        return json.loads(path.read_text()) if path.exists() else {"minutes": 0.0, "state": ""}

    def keep(self, part: str, minutes: float, state: str) -> None:
        home(f"part_{part}.json").write_text(json.dumps({"minutes": minutes, "state": state}))

    @property
    def settings(self) -> dict[str, Any]:
        """All that differs from the profile `gpu`."""
        planned = {"diffusion.steps": self.plan["steps"]} if "steps" in self.plan else {}
        own = {"diffusion.source": str(self.unet)} if self.unet.exists() else {}
        return {**SETTINGS, **(QUICK if self.quick else {}), **planned, **own}

    def companion(self) -> Companion:
        """With what was planned; it reads all images, so it stays as long as the plan does."""
        settings = self.settings
        if self.made is None or self.made[0] != settings:
            self.made = settings, Companion("gpu", 0, settings, self.data)
            self.made[1].pipeline.announce = False  # its trials take time
        return self.made[1]

    def table(self, table: pd.DataFrame, name: str) -> None:
        save_table(table.assign(data=self.label), self.results, name)
        print(table.to_string(max_rows=40))

    def figure(self, figure: Any, name: str, table: pd.DataFrame, caption: str) -> None:
        table = table.assign(data=self.label)
        save_figure(figure, self.results, name, table, f"{self.label}. {caption}", self.note)

    @property
    def note(self) -> str:
        return "quick" if self.quick else ""

    def trial(self, stage: Stage, n: int) -> None:
        """The first n steps of a stage, thrown away."""
        pipeline = self.companion().pipeline
        with tempfile.TemporaryDirectory() as folder:
            stage.trial(Job(Path(folder), Path(folder), pipeline.get, pipeline.artifact), n)


# environment --------------------------------------------------------------------------------------


def environment(run: Run) -> None:
    found = report.machine() | report.versions()
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found |= {"gpu_gb": round(card.total_memory / 1e9, 1), "sm": f"{card.major}.{card.minor}"}
    (run.results / "environment.json").write_text(json.dumps(found, indent=1))
    print(json.dumps(found))
    folders = [str(PROJECT / "tests" / name) for name in TESTED[: 1 if run.quick else None]]
    command = [sys.executable, "-m", "pytest", *folders, "-m", "not slow", "-rfE", "--tb=line"]
    command += ["-p", "no:cacheprovider", *([] if run.quick else ["-n", "8", "--dist=loadscope"])]
    with open(run.results / "tests.txt", "w") as log:
        # Compiled, most of their time would go to the compiler.
        eager = os.environ | {"TORCHDYNAMO_DISABLE": "1"}
        tests = subprocess.Popen(command, cwd=PROJECT, env=eager, stdout=log, stderr=log)
        try:
            trials(run)
            tests.wait()
        finally:
            tests.kill()
    print((run.results / "tests.txt").read_text()[-1500:])


def trials(run: Run) -> None:
    """Every stage and method of the profile smoke once, on these images; losses are finite."""
    small = {"data.name": "cifar10", "data.size": 32, "pretrain.backbone.stem_stride": 2}
    companion = Companion("smoke", 0, small, run.data)
    wanted: list[Stage] = []
    for kind in Stage.kinds.values():
        with suppress(ConfigError):
            wanted += [companion.stage(kind)] if kind.made else []
    wanted += [companion.stage(Pretrained, method=name) for name in ALL_METHODS]
    rows = []
    with torch.compiler.set_stance("force_eager"):
        for stage in dict.fromkeys(wanted[:3] if run.quick else wanted):
            start, fault = time.perf_counter(), ""
            try:
                found = companion.pipeline.artifact(stage)
                for losses in found.path.glob("losses.npy"):
                    fault = "" if np.isfinite(np.load(losses)).all() else "loss is not finite"
            except OutOfTime:
                raise
            except Exception as error:  # the others are tried all the same
                fault = f"{type(error).__name__}: {error}"
                (run.results / "faults.txt").open("a").write(traceback.format_exc())
            name = f"{stage.kind} {getattr(stage, 'method', '')}".strip()
            rows.append((name, round(time.perf_counter() - start, 2), fault))
            run.table(pd.DataFrame(rows, columns=["stage", "seconds", "fault"]), "trials")


# speed --------------------------------------------------------------------------------------------


@contextmanager
def torch_defaults() -> Iterator[None]:
    """The authors' way: convolutions in TF32, as PyTorch has it where nobody says otherwise."""
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = False


def speed(run: Run) -> None:
    data, cfg = run.companion().data, run.companion().cfg
    images, labels = data.train.images, data.train.labels
    unet_shape, simclr, size = cfg.diffusion.unet, cfg.simclr, images.shape[1]
    simclr = change(simclr, third_view=change(simclr.third_view, ramp=0.0), epochs=1)
    n_steps = 6 if run.quick else 40
    peak = report.peak_flops("bf16")
    half, whole = report.unet_flops(unet_shape, size)
    rows: list[dict[str, Any]] = []

    def note(what: str, way: str, rate: float, flops: float) -> None:
        first = next((row["per_second"] for row in rows if row["what"] == what), rate)
        share = rate * flops / peak
        rows.append(
            {"what": what, "way": way, "per_second": rate, "times": rate / first, "of_peak": share}
        )
        run.table(pd.DataFrame(rows).assign(peak_tflops=peak / 1e12), "speed")

    def timed(way: Callable[[], object], items: float) -> float:
        return report.alternate({"": Way(way, items)}, 1)[""][0]

    with torch_defaults():
        theirs_of_each(run, note, timed, n_steps)

    # Candidates, eight per anchor.
    unet = to_device(build_unet(unet_shape, size).eval())
    n, steps = (2, 2) if run.quick else (64, cfg.candidates.steps)
    make = partial(interpolate, unet, images[:n], 0.1, 1000, 8, steps, None, 0, "auto")
    flops = steps * (half * (1 + 1 / 8) + whole - half)
    note("candidates", "package", timed(make, 8 * n), flops)

    def diffuse(n: int) -> None:
        with tempfile.TemporaryDirectory() as work:
            train(change(cfg.diffusion, steps=n), images, 0, Path(work), "auto")

    seconds = step_seconds(diffuse, n_steps)
    note("diffusion, images", "package", cfg.diffusion.batch / seconds, 3 * whole)

    backbone = authors.Encoder(simclr.backbone).backbone.eval()
    how = (data.statistics, cfg.probe, 0, "auto")
    evaluate = partial(score, backbone, data.train, data.test, *how, flip=True)
    note("linear evaluations", "package, with its kNN", timed(evaluate, 1.0), 0.0)

    bank = images[:, None]  # what is in it does not change the time

    def contrast(n: int) -> None:
        n *= simclr.batch
        anchors = (images[:n], labels[:n], data.statistics)
        with tempfile.TemporaryDirectory() as work:
            pretrain("CLSP-SimCLR", simclr, *anchors, 0, Path(work), "auto", bank[:n])

    seconds = step_seconds(contrast, min(n_steps, len(images) // simclr.batch))
    flops = 3 * training_flops(simclr.backbone, size)
    note("contrastive, samples", "package", simclr.batch / seconds, flops)

    for name, work in {"diffusion": diffuse, "contrastive": contrast}.items():
        profiled(run, name, partial(work, 4))
    profiled(run, "candidates", make)


def theirs_of_each(run: Run, note: Any, timed: Any, n_steps: int) -> None:
    """The same by the authors' way (`authors`), in the precision that PyTorch has by itself."""
    data, cfg = run.companion().data, run.companion().cfg
    images, labels, size = data.train.images, data.train.labels, data.train.images.shape[1]
    half, whole = report.unet_flops(cfg.diffusion.unet, size)
    where = device()

    def rate_of(step: Callable[[], object], n: int) -> float:
        """Steps per second, after as many in which the loader's workers come up to speed."""
        return timed(lambda: [step() for _ in range(n)], n)

    unet = build_unet(cfg.diffusion.unet, size).eval().to(where)
    n, steps = (4, 10) if run.quick else (128, 100)
    x, g = torch.rand(n, 3, size, size, device=where), torch.Generator(where)
    some = partial(authors.interpolate, unet, x, torch.randn_like(x), 0.1, steps, 0.1, g, g, 2)
    note("candidates", "authors' way", timed(some, n * 2 / steps), steps * (whole + half))

    plain = ChannelStatistics((0.5,) * 3, (0.5,) * 3)
    samples = authors.OneView(images, labels, authors.flipped(0.5, plain))
    batches = iter(authors.loader(samples, cfg.diffusion.batch, endless=True))
    one = authors.Diffusion(
        build_unet(cfg.diffusion.unet, size), batches, cfg.diffusion.lr, cfg.diffusion.clip
    )
    rate = cfg.diffusion.batch * rate_of(one.step, n_steps)
    note("diffusion, images", "authors' way", rate, 3 * whole)

    view = authors.pipeline(cfg.simclr.views, size, data.statistics)
    three = authors.SixViews(images, images[:, None], view)
    batches = iter(authors.loader(three, cfg.simclr.batch, endless=True))
    other = authors.Contrastive(cfg.simclr, batches)
    rate = cfg.simclr.batch * rate_of(other.step, n_steps // 3)
    flops = 3 * training_flops(cfg.simclr.backbone, size)
    note("contrastive, samples", "authors' way", rate, flops)

    some_rows = slice(100 if run.quick else 5000)
    backbone = authors.Encoder(cfg.simclr.backbone).backbone
    view = authors.flipped(0.5, data.statistics)
    part = authors.OneView(images[some_rows], labels[some_rows], view)
    heads: list[nn.Module] = [nn.Linear(backbone.n_features, 10)]
    slow = authors.LinearEvaluation(backbone, heads, cfg.probe)
    loader = authors.loader(part, cfg.probe.batch)
    share = len(part) / (len(images) * cfg.probe.epochs)
    note("linear evaluations", "authors' way", timed(lambda: slow.epoch(0, loader), share), 0.0)


def profiled(run: Run, name: str, work: Callable[[], object]) -> None:
    """Writes where the time goes: kernels of the GPU, and what the CPU does or waits for."""
    on_gpu = torch.cuda.is_available()
    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with profile(activities=kinds) as found:
        work()
        report.wait_for_device()
    average, path = found.key_averages(), run.results / f"profile_{name}.txt"
    orders = ["self_cuda_time_total"] * on_gpu + ["self_cpu_time_total"]
    tables = [average.table(sort_by=x, row_limit=20, max_name_column_width=70) for x in orders]
    path.write_text("\n\n".join(tables))
    print(f"{name}\n{tables[0][:4000]}")


# diffusion ----------------------------------------------------------------------------------------


def diffusion(run: Run) -> None:
    if "steps" not in run.plan and not run.unet.exists():
        begun = time.monotonic()
        stage = run.companion().stage(DiffusionModel)
        seconds = step_seconds(partial(run.trial, stage), 6 if run.quick else 60)
        measured = (time.monotonic() - begun) / 60  # most of it compiling
        minutes = 0.1 if run.quick else MINUTES["diffusion"] - SAMPLING - measured
        plan = {"steps": steps_that_fit(minutes, seconds), "step_ms": round(1000 * seconds, 2)}
        run.path.write_text(json.dumps(plan | {"minutes_before_the_first": round(measured, 2)}))
        print(run.plan)
    companion = run.companion()
    artifact = companion.artifact(DiffusionModel)
    images = companion.get(Samples)[:, 0]
    losses = np.load(artifact / "losses.npy")
    parts = np.array_split(losses, min(100, len(losses))) if len(losses) else []
    table = pd.DataFrame({"step": np.cumsum([len(x) for x in parts]),
                          "loss": [x.mean() for x in parts]})  # fmt: skip
    run.table(table, "diffusion_loss")
    cfg = companion.cfg
    caption = (
        f"{len(images)} samples of a UNet that was trained for {cfg.diffusion.steps:,} steps of "
        f"{cfg.diffusion.batch} images; {cfg.samples.steps} steps of the sampler, none left out."
    )
    seen = pd.DataFrame({"n": [len(images)], "steps": [cfg.diffusion.steps]})
    run.figure(image_grid([*images.reshape(-1, 16, *images.shape[1:])]), "samples", seen, caption)


def pack(unet: nn.Module) -> bytes:
    """Weights as autocast reads them, matrices in bf16.

    High and low bytes are apart, since the exponents of weights are much alike and become smaller.
    """
    tensors = {k: x.bfloat16() if x.ndim > 1 else x for k, x in unet.state_dict().items()}
    written = safetensors.torch.save({k: x.cpu().contiguous() for k, x in tensors.items()})
    blob = np.frombuffer(written, np.uint8)
    file = io.BytesIO()
    np.savez_compressed(file, low=blob[0::2], high=blob[1::2])
    return file.getvalue()


def unpack(packed: bytes) -> dict[str, torch.Tensor]:
    """What `pack` packed, in fp32."""
    with np.load(io.BytesIO(packed), allow_pickle=False) as file:
        low, high = file["low"], file["high"]
    blob = np.empty(len(low) + len(high), np.uint8)
    blob[0::2], blob[1::2] = low, high
    return {name: x.float() for name, x in safetensors.torch.load(blob.tobytes()).items()}


def take_unet(run: Run, folder: Path) -> None:
    """The UNet that an earlier run left in pieces becomes a folder that diffusers reads."""
    pieces = sorted(folder.glob("unet.*"), key=lambda path: int(path.suffix[1:]))
    cfg = run.companion().cfg
    unet = build_unet(cfg.diffusion.unet, cfg.data.size)
    unet.load_state_dict(unpack(b"".join(piece.read_bytes() for piece in pieces)))
    unet.save_pretrained(run.unet)


# look ---------------------------------------------------------------------------------------------


def judge(run: Run) -> None:
    judge = run.companion().judge
    right = judge.agreement(run.companion().data.test.images, run.companion().data.test.labels)
    run.table(pd.DataFrame({"top1": [right], "n": [len(run.companion().data.test)]}), "judge")


def look(run: Run) -> None:
    _ = run.companion().judge  # before the notebooks, which need it all at once
    command = [sys.executable, "-m", "clsp_utils", "run"]
    given = ["--profile", "gpu", "-p", f"data={run.data}", "-p", f"overrides={run.settings!r}"]
    eager = os.environ | {"TORCHDYNAMO_DISABLE": "1"}  # few images: compiling takes longer
    running = {}
    try:
        for name in NOTEBOOKS:
            log = open(run.results / f"notebook_{name}.txt", "w")  # noqa: SIM115
            running[name] = subprocess.Popen(
                [*command, name, *given], cwd=PROJECT, env=eager, stdout=log, stderr=log
            )
        failed = [name for name, process in running.items() if process.wait()]
    finally:
        for process in running.values():
            process.terminate()
        collect(run)
    if failed:
        raise RuntimeError(f"notebooks {failed} failed: see notebook_*.txt in the results")


def collect(run: Run) -> None:
    """Figures and tables of the notebooks, which then say what the images are."""
    for path in sorted(home("build", "gpu", "cifar10", "figures").glob("*")):
        if path.suffix == ".csv":
            run_table = pd.read_csv(path)
            save_table(run_table.assign(data=run.label), run.results, path.stem)
        elif path.suffix == ".png":
            picture, text = Image.open(path), PngInfo()
            text.add_itxt("Description", f"{run.label}. {picture.text.get('Description', '')}")
            picture.save(run.results / path.name, pnginfo=text)


# encoders -----------------------------------------------------------------------------------------


def bank(run: Run) -> None:
    companion = run.companion()
    made = companion.get(InterpolatedBank)
    agreement = companion.judge.agreement(made[:, 0], companion.data.train.labels)
    run.table(pd.DataFrame({"n": [len(made)], "agreement": [agreement]}), "bank")


def encoders(run: Run) -> None:
    companion, rows = run.companion(), []
    for seed in run.seeds:  # all methods of a seed before the next one
        for method in run.methods:
            found = companion.get(Scores, method=method, seed=seed)
            kept = companion.artifact(Pretrained, method=method, seed=seed).manifest
            epochs = companion.cfg.simclr.epochs
            own = {"method": method, "seed": seed, "model": 0, "epochs": epochs}
            rows.append(own | found | {"seconds": kept["seconds"]})
            print(rows[-1], flush=True)
    if len(run.seeds) == companion.cfg.study.seeds:
        draw_encoders(run, pd.DataFrame(rows))


def draw_encoders(run: Run, runs: pd.DataFrame) -> None:
    run.table(runs, "encoder_runs")
    rows, methods = [], list(runs.method.unique())
    for method in methods:
        own, row = runs[runs.method == method], {"method": method}
        for metric in ("linear", "knn"):
            row[metric], row[f"{metric}_half_width"] = interval(own[metric])
        rows.append(row)
    set_style()
    fig, axes = plt.subplots(1, 2, figsize=(FULL, 1.5), sharey=True)
    for ax, metric in zip(axes, ("linear", "knn"), strict=True):
        dots(ax, pd.DataFrame(rows), metric, f"{metric}_half_width")
        ax.set_title({"linear": "linear top-1", "knn": "kNN top-1"}[metric])
    n_seeds, epochs = runs.seed.nunique(), runs.epochs.iloc[0]
    caption = (
        f"ResNet-18, {epochs} epochs each (the authors: 1,000): top-1 of frozen features, mean of "
        f"{n_seeds} seeds, 95 % t intervals."
    )
    run.figure(fig, "encoders", pd.DataFrame(rows), caption)
    pairs = [(methods[-1], rival) for rival in methods[:-1]]
    differences = pd.DataFrame(
        [paired(runs, metric, *pair) for metric in ("linear", "knn") for pair in pairs]
    )
    run.table(differences.assign(p_holm=holm(differences.p)), "encoders_paired")


# all ----------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Run], None]] = {
    "environment": environment, "speed": speed, "diffusion": diffusion, "judge": judge,
    "look": look, "bank": bank, "encoders": encoders,
}  # fmt: skip


def do(run: Run, part: str, seconds: float) -> bool:
    """Does a part as far as the seconds allow; returns whether it failed."""
    print(f"== {part}, {seconds:.0f} s", flush=True)
    before = run.done(part)["minutes"]
    own = 60 * (PATIENCE * MINUTES[part] - before)
    limit, start, state, failed = min(seconds, max(1.0, own)), time.monotonic(), "done", False
    try:
        with time_limit(limit):
            PARTS[part](run)
    except Exception as error:
        # A compiler that the clock stops makes an error of its own of it.
        if isinstance(error, OutOfTime) or time.monotonic() - start >= limit:
            state = "cut off" if own < seconds else "to go on"
            print(f"{part}: {error}")
        else:
            failed, state = True, "failed"
            traceback.print_exc()
            (run.results / f"error_{part}.txt").write_text(traceback.format_exc())
    minutes = (time.monotonic() - start) / 60
    run.keep(part, round(before + minutes, 2), state)
    print(f"== {part}: {state}, {60 * minutes:.0f} s", flush=True)
    return failed


def deliver(run: Run, out: Path) -> None:
    """Writes results and weights to the folder that is carried back."""
    out.mkdir(parents=True, exist_ok=True)
    parts = {name: found for name in PARTS if (found := run.done(name))["state"]}
    lines = [
        f"# {run.label} on {torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'}"
    ]
    lines += ["", "| part | state | minutes |", "|---|---|---|"]
    lines += [f"| {name} | {one['state']} | {one['minutes']:.1f} |" for name, one in parts.items()]
    lines += ["", f"Plan: `{json.dumps(run.plan)}`", ""]
    lines += [f"Settings besides the profile gpu: `{run.settings!r}`", ""]
    (run.results / "report.md").write_text("\n".join(lines))
    with tarfile.open(out / "results.tar.gz", "w:gz") as file:
        file.add(run.results, "cifar10")
    if "steps" in run.plan and run.done("diffusion")["state"] == "done" and not run.unet.exists():
        companion = run.companion()
        if companion.pipeline.store.find(companion.stage(DiffusionModel).request):
            packed = pack(companion.unet)
            for i in range(0, len(packed), PIECE):
                (out / f"unet.{i // PIECE}").write_bytes(packed[i : i + PIECE])


def main(arguments: list[str] | None = None) -> int:
    """Does what is left of the parts; returns how many failed."""
    start = time.monotonic()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--data", required=True, help="CIFAR-10, as -p data= reads it")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is carried back")
    parser.add_argument("--minutes", type=float, default=9.0, help="of this call (9)")
    parser.add_argument("--unet", type=Path, help="folder with the UNet of an earlier run")
    parser.add_argument("--label", default="re-compressed CIFAR-10")
    parser.add_argument("--quick", action="store_true", help="a dry run, tiny, on any machine")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="of the encoders (all)")
    parser.add_argument("--seeds", nargs="+", type=int, help="of the encoders (all)")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"no such part: {', '.join(unknown)}")
    os.environ.setdefault("CLSP_HOME", str(PROJECT / "build" / "cifar10"))
    run, failed = Run(options.data, options.label, options.quick), 0
    run.methods, run.seeds = options.methods or run.methods, options.seeds or run.seeds
    if options.unet and not run.unet.exists():
        take_unet(run, options.unet)
    for part in options.parts or PARTS:
        left = 60 * options.minutes - (time.monotonic() - start) - SAVING
        ended = run.done(part)["state"] in ("done", "cut off")
        if ended and part in options.parts:  # its minutes begin anew
            run.keep(part, 0.0, "")
        if left > SAVING and not (ended and part not in options.parts):
            failed += do(run, part, left)
    deliver(run, options.out)
    return failed


if __name__ == "__main__":
    sys.exit(main())
