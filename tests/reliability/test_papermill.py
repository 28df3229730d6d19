"""Every way in which a notebook can fail is told: which notebook, which cell, why."""

import json
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from clsp_utils.book import run_notebooks as runner
from clsp_utils.store import Request, Store

# Cell 1 has the parameters, cell 2 makes an artifact, cell 3 is the one below, cell 4 goes on.
MAKE = """
from clsp_utils.store import Request, Store
request = Request("stage", {{"name": {name!r}}})
Store({store!r}).get(request, lambda out, work: (out / "result").write_text("kept"))
"""
# Runs all notebooks of the folder argv[1].
RUN = """
import sys
from pathlib import Path
from clsp_utils.book import run_notebooks as runner
folder = Path(sys.argv[1])
sys.exit(runner.run(runner.find_notebooks(folder), folder / "build", "smoke", {}))
"""
FAILURES = {
    "error": ("raise ValueError('no luck')", ["cell 3 ", "ValueError: no luck"]),
    "no_traceback": (
        "class Stop(Exception):\n    def _render_traceback_(self):\n        return []\n"
        "raise Stop('quietly')",
        ["cell 3 "],
    ),
    "interrupted": ("raise KeyboardInterrupt", ["cell 3 ", "KeyboardInterrupt"]),
    "too_long": ("import time; time.sleep(600)", ["cell 3 ", "longer than 8 s"]),
    "killed": ("import os; os.kill(os.getpid(), 9)", ["cell 3", "kernel died"]),
    "ended": ("import os; os._exit(0)", ["cell 3", "kernel died"]),
    "segfault": ("import ctypes; ctypes.string_at(0)", ["cell 3", "kernel died"]),
    "sys_exit": ("import sys; sys.exit(0)", ["stopped early", "cell 3 "]),
    "system_exit": ("raise SystemExit", ["stopped early", "cell 3 "]),
    "sys_exit_3": ("import sys; sys.exit(3)", ["cell 3 ", "SystemExit: 3"]),
    "syntax": ("1 +", ["cell 3 ", "SyntaxError"]),
    "memory": ("raise MemoryError('all of it')", ["cell 3 ", "MemoryError"]),
}


def write(path, *sources):
    cells = [
        new_code_cell(
            'profile: str = "smoke"\noverrides: dict = {}\n', metadata={"tags": ["parameters"]}
        )
    ]
    cells += [new_code_cell(source) for source in sources]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


@pytest.mark.slow
@pytest.mark.item("5 papermill", "failures")
@pytest.mark.parametrize("name", FAILURES)
def test_failure_is_told_and_earlier_results_are_kept(tmp_path, capsys, name):
    source, parts = FAILURES[name]
    store = Store(tmp_path / "store")
    make = MAKE.format(store=str(tmp_path / "store"), name=name)
    path = write(tmp_path / f"01_{name}.ipynb", make, source, "print('went on')")
    assert runner.run([path], tmp_path / "build", "smoke", {}, timeout=8) == 1
    [entry] = json.loads((tmp_path / "build/smoke/report.json").read_text())
    assert entry["name"] == path.stem and entry["status"] == "failed"
    for part in parts:
        assert part in entry["error"]
    assert path.stem in capsys.readouterr().out
    assert "went on" not in (tmp_path / "build/smoke/notebooks" / path.name).read_text().replace(
        "print('went on')", ""
    )
    artifact = store.find(Request("stage", {"name": name}))
    assert (artifact / "result").read_text() == "kept"


@pytest.mark.slow
@pytest.mark.item("5 papermill", "failures")
def test_exit_in_the_last_cell_is_told_too(tmp_path):
    path = write(
        tmp_path / "01_last.ipynb",
        "1",
        "import sys; sys.exit(0); raise ValueError('never reached')",
    )
    assert runner.run([path], tmp_path / "build", "smoke", {}, timeout=60) == 1
    [entry] = json.loads((tmp_path / "build/smoke/report.json").read_text())
    assert "stopped early" in entry["error"] and "cell 3 " in entry["error"]


@pytest.mark.slow
@pytest.mark.item("5 papermill", "failures")
def test_quit_is_told_unless_the_notebook_went_on_to_its_end(tmp_path):
    path = write(tmp_path / "01_quit.ipynb", "1", "quit()", "print('went', 'on')")
    failures = runner.run([path], tmp_path / "build", "smoke", {}, timeout=60)
    went_on = "went on" in (tmp_path / "build/smoke/notebooks" / path.name).read_text()
    assert failures == (0 if went_on else 1)


@pytest.mark.slow
@pytest.mark.item("10 memory", "peak is recorded")
def test_report_has_the_peak_of_kernel_and_workers(tmp_path):
    hold = "import time; x = b'x' * 200_000_000; time.sleep(1.5)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    write(tmp_path / "01_small.ipynb", "1")
    write(tmp_path / "02_large.ipynb", f"y = b'y' * 300_000_000\n{child}")
    # In a process of its own: this one has children that are none of the runner's.
    subprocess.run([sys.executable, "-c", RUN, tmp_path], check=True)
    small, large = json.loads((tmp_path / "build/smoke/report.json").read_text())
    assert 20 < small["peak_mb"] < 200
    assert 500 < large["peak_mb"] - small["peak_mb"] < 700
