"""Counts what was tried and what survived, and the one unbroken run that all others must equal.

A test marked `item("1 kills")` counts for that item, a test marked `rounds(short=2, long=20)` is
run so often. `--results FILE` writes the counts.
"""

import json
import os
import platform
import shutil
import time
from collections import defaultdict
from pathlib import Path

import psutil
import pytest
from homes import Reference

from clsp_utils.store import artifacts

OUTCOMES = pytest.StashKey[dict]()


def pytest_configure(config):
    config.addinivalue_line("markers", "item(name, part): what a test counts for in results.json")
    config.addinivalue_line("markers", "rounds(short, long): how often a test is run")
    config.stash[OUTCOMES] = {}


def pytest_generate_tests(metafunc):
    marker = metafunc.definition.get_closest_marker("rounds")
    if marker:
        metafunc.parametrize("round", range(marker.kwargs[metafunc.config.getoption("--rounds")]))


def pytest_collection_modifyitems(config, items):
    chosen = config.getoption("--rounds")
    never = [
        item for item in items if (m := item.get_closest_marker("rounds")) and not m.kwargs[chosen]
    ]
    items[:] = [item for item in items if item not in never]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    marker = item.get_closest_marker("item")
    if marker:
        part = marker.args[1] if len(marker.args) > 1 else item.originalname
        part = item.callspec.params.get("stage", part) if hasattr(item, "callspec") else part
        outcome = item.config.stash[OUTCOMES].setdefault(
            item.nodeid, {"name": marker.args[0], "part": part}
        )
        order = ("passed", "skipped", "failed")  # one phase that fails is a failure
        outcome["outcome"] = max(outcome.get("outcome", "passed"), report.outcome, key=order.index)
        outcome["noted"] = dict(item.user_properties)
    return report


def pytest_sessionfinish(session):
    path = session.config.getoption("--results")
    if not path:
        return
    items = defaultdict(
        lambda: defaultdict(lambda: {"tried": 0, "survived": 0, "lost": 0, "skipped": 0})
    )
    for entry in session.config.stash[OUTCOMES].values():
        counts = items[entry["name"]][entry["part"]]
        if entry["outcome"] == "skipped":
            counts["skipped"] += 1
            continue
        counts["tried"] += 1
        counts["survived" if entry["outcome"] == "passed" else "lost"] += 1
        for name, value in entry["noted"].items():
            counts[name] = max(counts.get(name, value), value)
    results = {
        "suite": session.config.getoption("--rounds"),
        "command": " ".join(["python -m pytest", *session.config.invocation_params.args]),
        "versions": artifacts._versions(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"{os.environ.get('OMP_NUM_THREADS')} thread",
        "items": dict(sorted(items.items(), key=lambda pair: int(pair[0].split()[0]))),
    }
    for name, parts in results["items"].items():
        totals = {
            key: sum(part[key] for part in parts.values())
            for key in ("tried", "survived", "lost", "skipped")
        }
        results["items"][name] = totals | {"parts": parts}
    Path(path).write_text(json.dumps(results, indent=1) + "\n")


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    return Reference(tmp_path_factory.mktemp("reference"))


@pytest.fixture
def place(tmp_path):
    """A folder for one test, emptied after it: hundreds of tests would fill a disk."""
    folder = tmp_path / "home"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def no_orphans():
    """No test may leave a process behind, besides the server that all stages are forked from."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    yield
    end = time.monotonic() + 10
    while left := [
        process
        for process in psutil.Process().children(recursive=True)
        if left_behind(process, before)
    ]:
        assert time.monotonic() < end, f"left behind: {left}"
        time.sleep(0.1)


def left_behind(process, before):
    try:
        server = process.ppid() == os.getpid() and "from multiprocessing" in " ".join(
            process.cmdline()
        )
        return process.pid not in before and not server and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
