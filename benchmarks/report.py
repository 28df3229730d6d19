"""What the benchmarks share: timing side by side, a table, a JSON file that says where and how."""

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from clsp_utils.config import UNetShape
from clsp_utils.diffusion import build_unet, decode, encode
from clsp_utils.runtime import device, resolve_precision

RESULTS = Path(__file__).parent / "results"


class Way(NamedTuple):
    """One way of doing the work.

    Attributes:
        run: does a piece of it.
        items: how many items (candidates, samples, ...) that piece is worth.
    """

    run: Callable[[], object]
    items: float


def precisions() -> list[str]:
    """fp32, and bf16 where the hardware multiplies it natively."""
    return ["fp32"] if resolve_precision("auto") == "fp32" else ["fp32", "bf16"]


def alternate(ways: dict[str, Way], rounds: int) -> dict[str, list[float]]:
    """Items a second of each way, one number a round: A B C, A B C, and so on.

    What else goes on in the machine thus hits all ways alike. An unmeasured round comes first.
    """
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way.run()
            wait_for_device()
            rate = way.items / (time.perf_counter() - start)
            print(f"round {i}: {name}: {rate:.4g}/s", file=sys.stderr)
            if i > 0:
                rates[name].append(rate)
    return rates


def wait_for_device() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def peak_flops(precision: str) -> float:
    """Floating-point operations a second of a large matrix product: all that the hardware gives."""
    n = 8192 if torch.cuda.is_available() else 2048
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    a, b = torch.randn(2, n, n, dtype=dtype, device=device())
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        a @ b
        wait_for_device()
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / statistics.median(seconds[1:])


def unet_flops(shape: UNetShape, size: int) -> tuple[int, int]:
    """Operations for one image, of the encoder half with the middle, and of the whole UNet."""
    with torch.device("meta"):
        unet, x = build_unet(shape, size), torch.zeros(1, 3, size, size)
    with FlopCounterMode(display=False) as half:
        features = encode(unet, x, 0)
    with FlopCounterMode(display=False) as other:
        decode(unet, *features)
    return half.get_total_flops(), half.get_total_flops() + other.get_total_flops()


def share_of_peak(rates: dict[str, list[float]], flops: float, **ways: str) -> dict[str, float]:
    """Precision -> share of the peak that the way named for it reaches.

    Args:
        flops: floating-point operations per item.
    """
    return {
        precision: _round(statistics.median(rates[way]) * flops / peak_flops(precision))
        for precision, way in ways.items()
        if way in rates
    }


def spread(values: list[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: _round(value) for name, value in found.items()}


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def ratio(rates: dict[str, list[float]], way: str) -> dict[str, float]:
    """How many times as fast as the first way, from the ratios of each round."""
    first = next(iter(rates.values()))
    return spread([a / b for a, b in zip(rates[way], first, strict=True)])


def headline(rates: dict[str, list[float]], **ways: str) -> dict:
    """The named ratios: median, and range over the rounds. A way that was not run has none."""
    ratios = {name: ratio(rates, way) for name, way in ways.items() if way in rates}
    ranges = {f"{name}_range": [x["low"], x["high"]] for name, x in ratios.items()}
    return {name: x["median"] for name, x in ratios.items()} | ranges


def ablation(rates: dict[str, list[float]], unit: str) -> list[dict]:
    """A row a way, the first being the authors' way; prints them too."""
    rows = [{"way": name, unit: spread(rates[name]), "ratio": ratio(rates, name)} for name in rates]
    width = max(map(len, rates))
    print(f"{'':{width}}  {unit:>16}  {'ratio':>7}  low .. high")
    for row in rows:
        rate, times = row[unit]["median"], row["ratio"]
        range_ = f"{times['low']:.2f} .. {times['high']:.2f}"
        print(f"{row['way']:{width}}  {rate:16.4g}  {times['median']:7.2f}  {range_}")
    return rows


def machine() -> dict:
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        named = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
        model = next(named, model)
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "bf16": precisions()[-1] == "bf16",
        **gpu,
    }


def versions() -> dict:
    names = ("torch", "torchvision", "diffusers", "numpy", "pillow")
    installed = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version()} | installed


def main(measure: Callable[[bool], dict]) -> None:
    """The command line: runs `measure(quick)` and writes what it returns, and the circumstances."""
    parser = argparse.ArgumentParser()
    quick = "tiny settings: checks the wiring, times nothing"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    args = parser.parse_args()
    if args.quick and args.out == RESULTS:
        parser.error("--quick needs --out, so that it does not replace measured results.")
    write(Path(sys.argv[0]).stem, measure, args.quick, args.out)


def write(name: str, measure: Callable[[bool], dict], quick: bool, out: Path) -> Path:
    """Runs a benchmark and writes `out/name.json`."""
    start = time.perf_counter()
    result = measure(quick)
    result |= {
        "machine": machine(),
        "versions": versions(),
        "command": shlex.join(["python", f"benchmarks/{name}.py", *(["--quick"] if quick else [])]),
        "seconds_of_benchmark": round(time.perf_counter() - start),
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{result['seconds_of_benchmark']} s, {path}")
    return path
