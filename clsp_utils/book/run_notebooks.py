"""Runs notebooks with papermill, strictly: known parameters only, failures told in one sentence.

Knows nothing of the science: notebooks are files with parameters, run in order.
"""

import ast
import difflib
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psutil
import zmq
from filelock import FileLock
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from clsp_utils.book.report import report_page
from clsp_utils.config import PROJECT, ConfigError, alike, is_hub_name
from clsp_utils.pipeline.profile import Profile, as_mapping
from clsp_utils.pipeline.stages import read_anew
from clsp_utils.store import locked, replace_file

# What goes between us and a kernel, through ports of this machine that any of its users can reach.
ENCRYPTED = {"transport_encryption": "auto"} if zmq.has("curve") else {}
PATHS = {"data", "data.path", "data.wnids", "study.inception"}  # and what ends with ".source"


def find_notebooks(folder: Path, wanted: Sequence[str] = ()) -> list[Path]:
    """Notebooks of `folder` in order; `wanted` are beginnings of their names, such as "03"."""
    # Not what editors leave beside them, such as JupyterLab's "01_name-Copy1".
    own = (path for path in folder.glob("*.ipynb") if re.fullmatch(r"\d\d_\w+", path.stem))
    everything = sorted(own)
    names = ", ".join(path.stem for path in everything)
    if not everything:
        raise ConfigError(
            f"notebooks={str(folder)!r}: there are no notebooks in this folder; install the "
            f"package from a checkout, with pip install -e."
        )
    chosen = []
    for word in wanted:
        stem = Path(word).stem
        matches = [path for path in everything if stem and path.stem.startswith(stem)]
        matches = [path for path in matches if path.stem == stem] or matches
        if len(matches) != 1:
            raise ConfigError(f"notebook={word!r}: use the beginning of one of {names}.")
        chosen += matches
    return sorted(set(chosen)) or everything


SAVED = re.compile(r"save_(?:figure|table)\([^\"]*\"(\w+)\"", re.DOTALL)


def figures_of(notebook: Path) -> dict[str, int]:
    """What a notebook draws: name of each figure or table -> cells up to the one that saves it."""
    cells = nbformat.read(notebook, as_version=4).cells
    code = ((i, cell.source) for i, cell in enumerate(cells, 1) if cell.cell_type == "code")
    return {name: i for i, source in code for name in SAVED.findall(source)}


def find_figure(folder: Path, name: str) -> tuple[Path, int]:
    """The notebook that draws a figure or table, and how many of its cells that takes."""
    notebooks = {path: figures_of(path) for path in find_notebooks(folder)}
    for path, figures in notebooks.items():
        if name in figures:
            return path, figures[name]
    known = [figure for figures in notebooks.values() for figure in figures]
    near = difflib.get_close_matches(name, known, 3) or known
    raise ConfigError(f"figure={name!r}: use one of {', '.join(near)}.")


def listed(notebooks: Sequence[Path], folders: Sequence[Path]) -> str:
    """Notebooks, their parameters, and which of their figures lie in one of the folders."""
    lines = []
    for path in notebooks:
        parameters = ", ".join(papermill.inspect_notebook(str(path)))
        lines.append(f"{path.stem} ({parameters})")
        for name in figures_of(path):
            found = [str(one) for one in folders if (one / f"{name}.csv").exists()]
            lines.append(f"  {name}: {', '.join(found) or 'not drawn yet'}")
    return "\n".join(lines)


def is_path(name: str) -> bool:
    """Whether a parameter names a file or a folder."""
    return name in PATHS or name.endswith(".source")


def parse_parameters(pairs: Sequence[str]) -> dict[str, Any]:
    """`name=value` pairs; values are read as Python literals, else as text, as paths always are."""
    parameters = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign or not name:
            raise ConfigError(f"-p {pair!r}: write name=value.")
        parameters[name] = text
        if not is_path(name):
            with suppress(ValueError, SyntaxError):
                parameters[name] = ast.literal_eval(text)
    return parameters


def split_settings(
    parameters: dict[str, Any],
) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Overrides of the profile, path of the data ("" = none), and all other parameters.

    Notebooks run in their own folder: paths become absolute.
    """
    parameters = dict(parameters)
    for name in filter(is_path, list(parameters)):
        given = str(parameters[name])
        place = Path(os.path.expanduser(given)).absolute()
        if given and place.exists():  # else it may be the name of weights on the Hub
            parameters[name] = str(place)
    overrides, data = as_mapping(parameters.pop("overrides", {})), str(parameters.pop("data", ""))
    settings = {
        name: value for name, value in parameters.items() if "." in name or name == "precision"
    }
    others = {name: value for name, value in parameters.items() if name not in settings}
    return {**overrides, **settings}, data, others


def assign(
    notebooks: Sequence[Path], profile: str, parameters: dict[str, Any]
) -> list[dict[str, Any]]:
    """The parameters of each notebook, checked against its parameters cell and the profile.

    A dotted name, such as `candidates.k`, or `precision` overrides that field of the profile in
    every notebook; a plain name goes to the notebooks that have it.
    """
    overrides, data, plain = split_settings(parameters)
    settings = Profile(profile, overrides, data).tree
    # As in JSON, which papermill can write into any notebook.
    overrides = json.loads(json.dumps(overrides, default=list))
    if data:
        plain["data"] = data
    known = [papermill.inspect_notebook(str(path)) for path in notebooks]
    everything = sorted(set().union(*known) - {"profile"})
    for name, value in plain.items():
        if name not in everything:
            near = " or ".join(alike(settings, name))
            meant = f"the setting {near}, or " if near else ""
            raise ConfigError(
                f"-p {name}={value}: no such parameter; use {meant}one of {', '.join(everything)}."
            )
    assigned = []
    for have in known:
        own = {}
        for name in plain.keys() & have.keys():
            own[name] = _typed(plain[name], have[name]["default"], name)
        if "seed" in own:
            Profile(profile, overrides, data, own["seed"])
        assigned.append({"profile": profile, "overrides": overrides} | own)
    return assigned


def check_what_people_bring(profile: str, parameters: dict[str, Any]) -> None:
    """Refuses places without the images, and weights and candidates that cannot be used.

    That is before any kernel starts. What may be a name on the Hub is left to the stage that
    fetches it.
    """
    overrides, data, _ = split_settings(parameters)
    settings = Profile(profile, overrides, data)
    if settings.data.path:
        from clsp_utils.data import check_place  # seconds of imports

        check_place(settings.data)
    for section, stage in settings.sections.items():
        source = getattr(stage, "source", "")
        on_hub = section == "diffusion" and is_hub_name(source) and not Path(source).exists()
        if source and not on_hub:
            stage.check()
    read_anew()  # kernels have their own copy of the images


def _typed(value: Any, default: str, name: str) -> Any:
    kind = type(ast.literal_eval(default))
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ConfigError(
            f"-p {name}={value}: use a value of type {kind.__name__}, such as {default}."
        )
    return value


def run_notebook(
    source: Path,
    target: Path,
    parameters: dict[str, Any],
    timeout: float | None,
    n_cells: int | None = None,
) -> None:
    """Executes one notebook; the executed copy is `target`.

    Args:
        timeout: seconds that each cell may take; None = any.
        n_cells: execute only so many of its cells; None = all.

    Raises:
        RuntimeError: it did not run to its end; one sentence names the cell and the reason.
    """

    def failed(index: int, before: str, after: str) -> RuntimeError:
        return RuntimeError(f"{before}cell {_source_position(target, index)}{after}")

    target.parent.mkdir(parents=True, exist_ok=True)
    shown = source
    if n_cells is not None:
        shown = target.with_suffix(".part.ipynb")
        part = nbformat.read(source, as_version=4)
        part.cells = part.cells[:n_cells]
        nbformat.write(part, shown)
    reached = [0]  # papermill does not say where a notebook was when it ran out of time or died
    live = {"stdout_file": sys.stdout, "stderr_file": sys.stderr} if sys.stderr.isatty() else {}
    try:
        papermill.execute_notebook(
            # papermill fills in what stands in braces
            *(str(path).replace("{", "{{").replace("}", "}}") for path in (shown, target)),
            parameters,
            progress_bar=False,
            kernel_name="python3",
            execution_timeout=timeout,
            coalesce_streams=True,
            cwd=str(source.parent),
            config=Config(KernelManager=ENCRYPTED),
            shutdown_kernel="immediate",  # a graceful one takes seconds, and the store needs none
            on_cell_execute=lambda cell, cell_index: reached.append(cell_index),
            **live,
        )
    except KeyboardInterrupt:
        # It would tell the end of the kernel with a traceback.
        logging.getLogger("asyncio").disabled = True
        raise
    except PapermillExecutionError as error:
        reason = f"{error.ename}: {error.evalue}".strip()
        raise failed(error.cell_index, "", f" failed with {reason}") from None
    except CellTimeoutError:
        raise failed(reached[-1], "", f" ran longer than {timeout:g} s") from None
    except DeadKernelError:
        raise failed(reached[-1], "its kernel died in ", ", perhaps for lack of memory") from None
    # A cell that calls sys.exit(0) ends the run without an error.
    early = "it stopped early: "
    for i, cell in enumerate(nbformat.read(target, as_version=4).cells):
        if any(output.output_type == "error" for output in cell.get("outputs", [])):
            raise failed(i, early, " called sys.exit")
        skipped = "skip-execution" in cell.metadata.get("tags", [])  # for readers at the screen
        if cell.cell_type == "code" and cell.source and not (cell.execution_count or skipped):
            raise failed(i, early, " did not run")


def _source_position(executed: Path, index: int) -> int:
    """Number, from 1, in the source notebook of the cell that papermill calls `index`.

    papermill adds a cell with the parameters, and after an error marks that it does not count.
    """
    tags = [cell.metadata.get("tags", []) for cell in nbformat.read(executed, as_version=4).cells]
    counted = [own for own in tags if "papermill-error-cell-tag" not in own][: index + 1]
    return sum("injected-parameters" not in own for own in counted)


class MemoryPeak:
    """The most that the processes below this one held while `with MemoryPeak() as peak` lasted.

    What they share counts for each of them, so that the sum is rather too high than too low.

    Attributes:
        bytes: so far, asked twice per second.
    """

    def __init__(self) -> None:
        self.bytes, self.done = 0, threading.Event()

    def __enter__(self) -> "MemoryPeak":
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.done.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.done.wait(0.5):
            total = 0
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):  # it has just ended
                    total += process.memory_info().rss
            self.bytes = max(self.bytes, total)


def run(
    notebooks: Sequence[Path],
    build: Path,
    profile: str,
    parameters: dict[str, Any],
    timeout: float | None = 3600,
    n_cells: int | None = None,
) -> int:
    """Runs notebooks, or their first `n_cells`, one after the other; returns how many failed.

    Executed copies go to `build/<profile>/notebooks`, names, seconds, peak memory and errors to
    `build/<profile>/report.json`, and the same with the figures to `report.html`. A failure does
    not stop the notebooks after it. Of two runs that come to the same notebook, one waits until the
    other has executed it.
    """
    assigned = assign(notebooks, profile, parameters)
    check_what_people_bring(profile, parameters)
    # Kernels use this very package, also where another checkout is installed.
    others = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PROJECT), others]))
    folder = build / profile
    folder.mkdir(parents=True, exist_ok=True)
    report: list[dict[str, Any]] = []
    for i, (path, own) in enumerate(zip(notebooks, assigned, strict=True), 1):
        name = f"[{i}/{len(notebooks)}] {path.stem}"
        print(f"{name} …", flush=True)
        lock = FileLock(folder / f".{path.stem}.lock")
        wait = partial(print, f"{name}: another run executes it; waiting.", flush=True)
        with locked(lock, wait), MemoryPeak() as peak:
            start, error = time.monotonic(), None
            try:
                run_notebook(path, folder / "notebooks" / path.name, own, timeout, n_cells)
            except Exception as failure:  # whatever it was, it is told and the next notebook runs
                error = str(failure) or type(failure).__name__
            seconds = time.monotonic() - start
        megabytes = round(peak.bytes / 1e6)
        print(f"{name}: {error or 'ok'} ({seconds:.0f} s, {megabytes} MB)", flush=True)
        report.append(
            {
                "name": path.stem,
                "status": "failed" if error else "ok",
                "seconds": round(seconds, 1),
                "peak_mb": megabytes,
                "error": error,
                "parameters": own,
            }
        )
        replace_file(folder / "report.json", json.dumps(report, indent=1).encode())
        page = report_page(report, profile, folder / "notebooks")
        replace_file(folder / "report.html", page.encode())
    failed = [entry["name"] for entry in report if entry["error"]]
    total = sum(entry["seconds"] for entry in report)
    ran = len(report) - len(failed)
    print(f"{ran} of {len(report)} notebooks ran to their end in {total:.0f} s.")
    print(f"Report: {folder / 'report.html'}")
    return len(failed)
