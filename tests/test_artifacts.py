"""The store: keys, damage, kills, and processes that meet."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clsp_utils import config
from clsp_utils.artifacts import Store, StoreError

CONFIG = {"a": 1, "b": {"c": [1, 2]}}
KEY = Store.key("stage", CONFIG)

# The start of every child process: `store` below argv[1], and CONFIG as above.
CHILD = f"""
import os, sys, time
from pathlib import Path
from clsp_utils.artifacts import Store
CONFIG = {CONFIG!r}
root = Path(sys.argv[1])
store = Store(root, log=lambda text: print(text, flush=True))
"""
# A build that counts itself, and goes on only when it is let.
COUNTED = CHILD + """
def build(out, work):
    with open(root / "built", "a") as file:
        file.write("once\\n")
    print("building", flush=True)
    while not (root / "go").exists():
        time.sleep(0.01)
    (out / "result").write_text("whole")
print((store.get("stage", CONFIG, build) / "result").read_text())
"""


@pytest.fixture
def store(tmp_path):
    """A store that keeps what it says in `store.said`."""
    said = []
    store = Store(tmp_path / "store", log=said.append)
    store.said = said
    return store


@pytest.fixture
def child(store):
    """Starts a process with some code and the store's folder; none outlives the test."""
    started = []

    def start(code):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(store.root)], stdout=subprocess.PIPE, text=True,
            cwd=Path(__file__).parents[1],
        )
        # Should it wait for a lock that is never freed, reading its output must come to an end.
        timer = threading.Timer(30, process.kill)
        timer.start()
        started.append((process, timer))
        return process

    yield start
    for process, timer in started:
        timer.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


def build(out, work):
    (out / "result").write_text("whole")
    (out / "deep").mkdir()
    (out / "deep" / "more").write_bytes(bytes(range(100)))


def leaves(node, path=()):
    """Paths of all values of a tree of dictionaries."""
    if not isinstance(node, dict):
        return [path]
    return [leaf for name in node for leaf in leaves(node[name], path + (name,))]


def test_key_depends_on_every_value():
    tree = config.as_dict(config.LAPTOP)
    keys = {Store.key("stage", tree)}
    for *branches, leaf in leaves(tree):
        changed = json.loads(json.dumps(tree))
        node = changed
        for branch in branches:
            node = node[branch]
        node[leaf] = "changed"
        keys.add(Store.key("stage", changed))
    assert len(keys) == 1 + len(leaves(tree)) > 50


def test_key_depends_on_stage_and_inputs_but_not_on_the_order_of_names():
    others = [("other", CONFIG), ("stage", CONFIG, ("x",)), ("stage", CONFIG, ("x", "y")), ("stage", CONFIG, ("y", "x"))]
    assert len({KEY} | {Store.key(*other) for other in others}) == 5
    assert Store.key("stage", {"b": {"c": (1, 2)}, "a": 1}) == KEY


def test_get_builds_once_then_finds(store):
    assert store.find("stage", CONFIG) is None
    first = store.get("stage", CONFIG, build)
    again = store.get("stage", CONFIG, lambda out, work: pytest.fail("built twice"))
    assert again == first == store.find("stage", CONFIG)
    assert first.path == store.root / "stage" / KEY and first.key == KEY
    assert (first / "result").read_text() == "whole"
    assert first.manifest["config"] == CONFIG and set(first.manifest["sha256"]) == {"result", "deep/more"}
    assert store.find("stage", CONFIG, ("input",)) is None
    assert store.said == []


def test_failed_build_leaves_nothing_and_frees_the_lock(store):
    def fail(out, work):
        (out / "result").write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.get("stage", CONFIG, fail)
    assert not (store.root / "stage" / KEY).exists()
    artifact = store.get("stage", CONFIG, lambda out, work: (out / "other").touch())
    assert list(artifact.manifest["sha256"]) == ["other"], "what the failed build wrote is gone"


@pytest.mark.parametrize("when", ["in build", "before rename"])
def test_kill_leaves_nothing_under_the_name_and_work_goes_on(store, child, when):
    killed = child(CHILD + f"""
die = lambda *_: os.kill(os.getpid(), 9)
def build(out, work):
    (work / "progress").write_text("7 steps")
    (out / "result").write_text("half")
    if {when!r} == "in build":
        die()
    Path.rename = die
store.get("stage", CONFIG, build)
""")
    assert killed.wait() == -signal.SIGKILL
    assert not (store.root / "stage" / KEY).exists() and store.find("stage", CONFIG) is None
    # In a child too, since a lock that the dead process still held would block for ever.
    rerun = child(CHILD + """
def build(out, work):
    (out / "resumed").write_text((work / "progress").read_text())
print((store.get("stage", CONFIG, build) / "resumed").read_text())
""")
    assert rerun.communicate()[0] == "7 steps\n"
    artifact = store.find("stage", CONFIG)
    assert list(artifact.manifest["sha256"]) == ["resumed"], "nothing of the killed build is in it"
    assert not list(store.root.glob("stage/.*.work")), "work is removed once the artifact is whole"


def test_two_processes_build_once(store, child):
    first = child(COUNTED)
    assert first.stdout.readline() == "building\n"
    second = child(COUNTED)
    assert "waiting" in second.stdout.readline()
    (store.root / "go").touch()
    assert first.communicate()[0] == second.communicate()[0] == "whole\n"
    assert (store.root / "built").read_text() == "once\n"


def test_lock_of_a_dead_process_is_free(store, child):
    owner = child(COUNTED)
    assert owner.stdout.readline() == "building\n"
    waiter = child(COUNTED)
    assert "waiting" in waiter.stdout.readline()
    owner.kill()
    assert waiter.stdout.readline() == "building\n"
    (store.root / "go").touch()
    assert waiter.communicate()[0] == "whole\n"


def flip_bit(path):
    blob = bytearray((path / "deep" / "more").read_bytes())
    blob[50] ^= 1
    (path / "deep" / "more").write_bytes(blob)


def other_config(path):
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"config": {"a": 2}}))


DAMAGES = {
    "bit flip": flip_bit,
    "truncated file": lambda path: (path / "result").write_text("who"),
    "emptied file": lambda path: (path / "result").write_text(""),
    "missing file": lambda path: (path / "result").unlink(),
    "missing manifest": lambda path: (path / "manifest.json").unlink(),
    "empty manifest": lambda path: (path / "manifest.json").write_text(""),
    "manifest of nothing": lambda path: (path / "manifest.json").write_text("{}"),
    "manifest of a wrong kind": lambda path: (path / "manifest.json").write_text("[1]"),
    "manifest that is no text": lambda path: (path / "manifest.json").write_bytes(b"\xff\xfe\x00"),
    "manifest of another config": other_config,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_artifact_is_named_set_aside_and_remade(store, damage):
    path = store.get("stage", CONFIG, build).path
    DAMAGES[damage](path)
    assert store.find("stage", CONFIG) is None
    [aside] = path.parent.glob(f"{KEY}.damaged-*")
    assert not path.exists()
    [message] = store.said
    assert f"stage/{KEY}" in message and aside.name in message
    assert (store.get("stage", CONFIG, build) / "result").read_text() == "whole"
    assert aside.exists() and store.find("stage", CONFIG)


def test_get_remakes_a_damaged_artifact_at_once(store):
    flip_bit(store.get("stage", CONFIG, build).path)
    assert (store.get("stage", CONFIG, build) / "deep/more").read_bytes() == bytes(range(100))
    assert len(store.said) == 1


def assert_one_sentence(error, *parts):
    message = str(error.value)
    assert message.endswith(".") and "\n" not in message and "None" not in message
    for part in parts:
        assert str(part) in message


def test_root_that_cannot_be_written(tmp_path):
    # Below a file, not in a folder without permission: the tests may run as root.
    (tmp_path / "file").touch()
    with pytest.raises(StoreError) as error:
        Store(tmp_path / "file" / "store")
    assert_one_sentence(error, tmp_path / "file" / "store")


def test_stage_that_cannot_be_written(store):
    (store.root / "stage").touch()
    with pytest.raises(StoreError) as error:
        store.get("stage", CONFIG, build)
    assert_one_sentence(error, "stage", KEY, store.root)


@pytest.mark.parametrize("reason, shown", [
    (OSError(28, "No space left on device"), "No space left on device"),
    (OSError("header is too large"), "header is too large"),  # as libraries raise it: no strerror
])
def test_write_that_fails_in_build_tells_why(store, reason, shown):
    def fail(out, work):
        raise reason

    with pytest.raises(StoreError) as error:
        store.get("stage", CONFIG, fail)
    assert_one_sentence(error, KEY, shown)
