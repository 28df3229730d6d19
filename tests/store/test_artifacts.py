"""The store: keys, damage, kills, and processes that meet."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clsp_utils.pipeline import Profile
from clsp_utils.store import Request, Store, StoreError, artifacts

CONFIG = {"a": 1, "b": {"c": [1, 2]}}
REQUEST = Request("stage", CONFIG)
KEY = REQUEST.key

# The start of every child process: `store` below argv[1], and REQUEST as above.
CHILD = f"""
import os, sys, time
from pathlib import Path
from clsp_utils.store import Request, Store
REQUEST = Request("stage", {CONFIG!r})
root = Path(sys.argv[1])
store = Store(root, log=lambda text: print(text, flush=True))
"""
# A build that counts itself, and goes on only when it is let.
COUNTED = (
    CHILD
    + """
def build(out, work):
    with open(root / "built", "a") as file:
        file.write("once\\n")
    print("building", flush=True)
    while not (root / "go").exists():
        time.sleep(0.01)
    (out / "result").write_text("whole")
print((store.get(REQUEST, build) / "result").read_text())
"""
)


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
            [sys.executable, "-c", code, str(store.root)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
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
    return [leaf for name in node for leaf in leaves(node[name], (*path, name))]


def test_key_depends_on_every_value():
    tree = Profile("laptop").tree
    keys = {Request("stage", tree).key}
    for *branches, leaf in leaves(tree):
        changed = json.loads(json.dumps(tree))
        node = changed
        for branch in branches:
            node = node[branch]
        node[leaf] = "changed"
        keys.add(Request("stage", changed).key)
    assert len(keys) == 1 + len(leaves(tree)) > 50


def test_key_depends_on_stage_inputs_and_version_but_not_on_the_order_of_names():
    others = [
        Request("other", CONFIG),
        Request("stage", CONFIG, ("x",)),
        Request("stage", CONFIG, ("x", "y")),
        Request("stage", CONFIG, ("y", "x")),
        Request("stage", CONFIG, version=2),
    ]
    assert len({KEY} | {other.key for other in others}) == 6
    assert Request("stage", {"b": {"c": (1, 2)}, "a": 1}).key == KEY


def test_key_depends_on_the_format(monkeypatch):
    monkeypatch.setattr(artifacts, "FORMAT", artifacts.FORMAT + 1)
    assert REQUEST.key != KEY


def test_get_builds_once_then_finds(store):
    assert store.find(REQUEST) is None
    first = store.get(REQUEST, build)
    again = store.get(REQUEST, lambda out, work: pytest.fail("built twice"))
    assert again == first == store.find(REQUEST)
    assert first.path == store.root / "stage" / KEY and first.key == KEY
    assert (first / "result").read_text() == "whole"
    assert first.manifest["config"] == CONFIG and set(first.manifest["sha256"]) == {
        "result",
        "deep/more",
    }
    assert store.find(Request("stage", CONFIG, ("input",))) is None
    assert store.said == []


def test_failed_build_leaves_nothing_and_frees_the_lock(store):
    def fail(out, work):
        (out / "result").write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.get(REQUEST, fail)
    assert not (store.root / "stage" / KEY).exists()
    artifact = store.get(REQUEST, lambda out, work: (out / "other").touch())
    assert list(artifact.manifest["sha256"]) == ["other"], "what the failed build wrote is gone"


@pytest.mark.parametrize("when", ["in build", "before rename"])
def test_kill_leaves_nothing_under_the_name_and_work_goes_on(store, child, when):
    killed = child(
        CHILD
        + f"""
die = lambda *_: os.kill(os.getpid(), 9)
def build(out, work):
    (work / "progress").write_text("7 steps")
    (out / "result").write_text("half")
    if {when!r} == "in build":
        die()
    Path.rename = die
store.get(REQUEST, build)
"""
    )
    assert killed.wait() == -signal.SIGKILL
    assert not (store.root / "stage" / KEY).exists() and store.find(REQUEST) is None
    # In a child too, since a lock that the dead process still held would block for ever.
    rerun = child(
        CHILD
        + """
def build(out, work):
    (out / "resumed").write_text((work / "progress").read_text())
print((store.get(REQUEST, build) / "resumed").read_text())
"""
    )
    assert rerun.communicate()[0] == "7 steps\n"
    artifact = store.find(REQUEST)
    assert list(artifact.manifest["sha256"]) == ["resumed"], "nothing of the killed build is in it"
    assert not list(store.root.glob("stage/.*.work")), "work is removed once the artifact is whole"


def test_work_that_a_kill_left_beside_the_artifact_is_removed_when_it_is_found(store, child):
    killed = child(
        CHILD
        + """
rename = Path.rename
def rename_and_die(self, target):
    rename(self, target)
    os.kill(os.getpid(), 9)
Path.rename = rename_and_die
store.get(REQUEST, lambda out, work: (out / "result").write_text("whole"))
"""
    )
    assert killed.wait() == -signal.SIGKILL
    [work] = store.root.glob("stage/.*.work")
    with artifacts._lock_of(store.root / "stage" / KEY):
        assert store.find(REQUEST) and work.exists(), "whoever has the lock may use it"
    assert store.find(REQUEST) and not work.exists()
    assert sorted(path.name for path in work.parent.iterdir()) == [f".{KEY}.lock", KEY]


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
    path = store.get(REQUEST, build).path
    DAMAGES[damage](path)
    assert store.find(REQUEST) is None
    [aside] = path.parent.glob(f"{KEY}.damaged-*")
    assert not path.exists()
    [message] = store.said
    assert f"stage/{KEY}" in message and aside.name in message
    assert (store.get(REQUEST, build) / "result").read_text() == "whole"
    assert aside.exists() and store.find(REQUEST)


def test_get_remakes_a_damaged_artifact_at_once(store):
    flip_bit(store.get(REQUEST, build).path)
    assert (store.get(REQUEST, build) / "deep/more").read_bytes() == bytes(range(100))
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
        store.get(REQUEST, build)
    assert_one_sentence(error, "stage", KEY, store.root)


@pytest.mark.parametrize(
    "reason, shown",
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (
            OSError("header is too large"),
            "header is too large",
        ),  # as libraries raise it: no strerror
    ],
)
def test_write_that_fails_in_build_tells_why(store, reason, shown):
    def fail(out, work):
        raise reason

    with pytest.raises(StoreError) as error:
        store.get(REQUEST, fail)
    assert_one_sentence(error, KEY, shown)


# Verified once ---------------------------------------------------------------------------------


@pytest.fixture
def hashed(monkeypatch):
    """Names of the files whose digest was computed."""
    names = []
    digest = artifacts._sha256
    monkeypatch.setattr(artifacts, "_sha256", lambda path: names.append(path.name) or digest(path))
    return names


def test_files_are_verified_once_by_a_store_until_somebody_touches_them(store, hashed):
    path = store.get(REQUEST, build).path
    hashed.clear()
    assert store.find(REQUEST) and store.get(REQUEST, pytest.fail) and not hashed
    os.utime(path / "result", ns=(0, 0))
    assert store.find(REQUEST) and sorted(hashed) == ["more", "result"]
    hashed.clear()
    assert store.find(REQUEST) and not hashed
    assert Store(store.root).find(REQUEST) and sorted(hashed) == ["more", "result"], (
        "each by itself"
    )


def test_a_change_is_noticed_by_the_store_that_has_verified_the_files(store):
    path = store.get(REQUEST, build).path
    assert store.find(REQUEST)
    flip_bit(path)
    assert store.find(REQUEST) is None and len(store.said) == 1
    store.get(REQUEST, build)
    other_config(path)
    assert store.find(REQUEST) is None and len(store.said) == 2


# Notes, threads, and file systems with less ----------------------------------------------------


def test_notes_are_in_the_manifest_and_not_in_the_key(store):
    artifact = store.get(REQUEST, build, {"device": "cpu", "precision": "fp32"})
    assert artifact.key == KEY
    assert (artifact.manifest["device"], artifact.manifest["precision"]) == ("cpu", "fp32")
    assert store.get(REQUEST, pytest.fail, {"device": "cuda"}) == artifact, (
        "found under other notes"
    )
    on_disk = json.loads((artifact.path / "manifest.json").read_text())
    assert on_disk["device"] == "cpu"
    on_disk["device"] = "cuda"
    (artifact.path / "manifest.json").write_text(json.dumps(on_disk))
    assert store.find(REQUEST) is None, "a note that was changed is damage too"


def test_threads_that_open_one_store_at_once_do_not_disturb_each_other(tmp_path):
    n_threads, rounds, errors = 8, 250, []
    together = threading.Barrier(n_threads)

    def open_again_and_again():
        for i in range(rounds):
            together.wait(30)
            try:
                Store(tmp_path / str(i) / "store")
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=open_again_and_again) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(list(tmp_path.glob("*/store"))) == rounds and not list(tmp_path.glob("*/store/*"))


def refuse_fsync(monkeypatch, number, folders):
    """os.fsync fails with an error of this number, for folders or for files."""
    original = os.fsync

    def fsync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode) == folders:
            raise OSError(number, os.strerror(number))
        original(handle)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES])
def test_a_file_system_that_cannot_fsync_folders_will_do(store, monkeypatch, number):
    refuse_fsync(monkeypatch, number, folders=True)
    assert (store.get(REQUEST, build) / "result").read_text() == "whole"
    assert store.find(REQUEST) and store.said == []


@pytest.mark.parametrize("number, folders", [(errno.EIO, True), (errno.EINVAL, False)])
def test_other_failures_of_fsync_are_told(store, monkeypatch, number, folders):
    refuse_fsync(monkeypatch, number, folders)
    with pytest.raises(StoreError) as error:
        store.get(REQUEST, build)
    assert_one_sentence(error, KEY, os.strerror(number))
    assert store.find(REQUEST) is None
