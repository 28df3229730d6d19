"""Memory and time of a bank of 10^4 to 10^6 anchors: python benchmarks/bank_memory.py"""

import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import report
import torch

from clsp_utils.book.run_notebooks import MemoryPeak
from clsp_utils.positives import draw_candidates, fill_bank, open_bank

SHAPE, BATCH = (16, 16, 3), 256


def measure(quick: bool) -> dict:
    sizes = (1000, 2000) if quick else (10_000, 100_000, 1_000_000)
    rows = []
    for n in sizes:
        # Each in a process of its own: memory of the one before would count.
        with ProcessPoolExecutor(1) as fresh:
            rows.append(fresh.submit(one_size, n).result())
        print(rows[-1])
    return {
        "what": f"a bank of one {SHAPE[0]} px candidate an anchor: filled in batches of {BATCH}, "
        "then read once in random order",
        "note": "the images are random numbers, so that writing and reading are timed and no "
        "network; memory is what the process holds beyond what it held before, without the file's "
        "pages, which the kernel lends and takes back",
        "sizes": rows,
    }


def one_size(n: int) -> dict:
    def make(rows: slice, seed: int) -> np.ndarray:
        batch = len(range(n)[rows])
        return np.random.default_rng(seed).integers(0, 256, (batch, 1, *SHAPE), dtype=np.uint8)

    before = own_memory()
    with TemporaryDirectory(dir=Path.cwd()) as folder, OwnMemoryPeak() as peak:
        start = time.perf_counter()
        open_bank(Path(folder), n, 1, BATCH, SHAPE)
        fill_bank(Path(folder), make, BATCH, 0)
        filled = time.perf_counter()
        bank = np.load(Path(folder) / "bank.npy", mmap_mode="r")
        g = torch.Generator().manual_seed(0)
        for rows in torch.randperm(n, generator=g).split(BATCH):
            draw_candidates(bank, rows, g)
        read = time.perf_counter()
        megabytes = bank.nbytes / 1e6
    return {
        "anchors": n,
        "bank_mb": round(megabytes),
        "peak_mb": round(max(0, peak.bytes - before) / 1e6, 1),
        "fill_us_an_anchor": round(1e6 * (filled - start) / n, 1),
        "read_us_an_anchor": round(1e6 * (read - filled) / n, 1),
    }


def own_memory() -> int:
    """Bytes that this process holds for itself."""
    memory = psutil.Process().memory_info()
    return memory.rss - memory.shared


class OwnMemoryPeak(MemoryPeak):
    """The most that this process held for itself, asked 20 times per second."""

    def _watch(self) -> None:
        while not self.done.wait(0.05):
            self.bytes = max(self.bytes, own_memory())


if __name__ == "__main__":
    report.main(measure)
