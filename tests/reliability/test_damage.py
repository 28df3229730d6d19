"""Damaged, foreign and malicious files: noticed when they are read, named, set aside, made anew."""

import ast
import json
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from homes import contents, leftovers
from safetensors import SafetensorError
from safetensors.torch import load_file
from stages import FOLDERS, OVERRIDES, STAGES, STEPS, Stage, die_after

import clsp_utils
from clsp_utils.store import Request, Store, StoreError, artifacts


def flip(path, draw):
    blob = bytearray(path.read_bytes())
    blob[draw.randrange(len(blob))] ^= 1 << draw.randrange(8)
    path.write_bytes(blob)


def request_of(manifest):
    """What was asked of the store when it was made."""
    return Request(
        manifest["stage"], manifest["config"], tuple(manifest["inputs"]), manifest["version"]
    )


def truncate(path, draw):
    path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])


def empty(path, draw):
    path.write_bytes(b"")


def remove(path, draw):
    path.unlink()


def make_a_folder(path, draw):
    path.unlink()
    path.mkdir()


DAMAGES = [flip, truncate, empty, remove, make_a_folder]


@pytest.fixture(scope="module")
def finished(reference, tmp_path_factory):
    return reference.finished(tmp_path_factory.mktemp("finished"))


@pytest.mark.item("2 damage", "noticed")
@pytest.mark.rounds(short=60, long=600)
def test_any_damage_is_noticed_named_and_set_aside(finished, round):
    draw = random.Random(f"damage {round}")
    path = draw.choice(sorted((finished / "artifacts").glob("*/[0-9a-f]*")))
    file = draw.choice(sorted(path.iterdir()))
    manifest = json.loads((path / "manifest.json").read_text())
    whole = file.read_bytes()
    draw.choice(DAMAGES if round % 2 else [flip])(file, draw)
    said = []
    store = Store(finished / "artifacts", said.append)
    try:
        assert store.find(request_of(manifest)) is None
        [aside] = path.parent.glob(f"{path.name}.damaged-*")
        assert (
            len(said) == 1
            and f"{path.parent.name}/{path.name}" in said[0]
            and aside.name in said[0]
        )
        assert not path.exists()
    finally:
        for aside in path.parent.glob(f"{path.name}.damaged-*"):
            aside.rename(path)
        shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
        file.write_bytes(whole)
    assert store.find(request_of(manifest)), "whole again"


def resigned(path, **changes):
    """Writes another manifest that is right about itself, as only a program could."""
    manifest = json.loads((path / "manifest.json").read_text()) | changes
    manifest.pop("digest", None)
    manifest["digest"] = artifacts._digest(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def of_another_format(path, draw):
    resigned(path, format=artifacts.FORMAT - 1)


def of_another_version(path, draw):
    resigned(path, version=0)


def of_another_configuration(path, draw):
    manifest = json.loads((path / "manifest.json").read_text())
    resigned(path, config=manifest["config"] | {"precision": "another"})


def of_other_inputs(path, draw):
    resigned(path, inputs=["0" * 20])


def of_another_stage(path, draw):
    resigned(path, stage="another")


FOREIGN = [
    of_another_format,
    of_another_version,
    of_another_configuration,
    of_other_inputs,
    of_another_stage,
]


@pytest.mark.item("2 damage")
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.rounds(short=1, long=10)
def test_damaged_artifact_is_made_anew(reference, place, stage, round, request):
    home = reference.finished(place)
    for later in list(STAGES)[list(STAGES).index(stage) + 1 :]:
        shutil.rmtree(home / "artifacts" / FOLDERS[later])
    [path] = (home / "artifacts" / FOLDERS[stage]).glob("[0-9a-f]*")
    draw = random.Random(f"remake {stage} {round}")
    if request.config.getoption("--rounds") == "short":
        round = list(STAGES).index(stage) * 2  # another damage for each stage
    ways = DAMAGES + FOREIGN
    way = ways[round % len(ways)]
    way(path if way in FOREIGN else draw.choice(sorted(path.iterdir())), draw)
    rerun = Stage(stage, home)
    assert rerun.wait() == 0, rerun.said()
    assert f"{FOLDERS[stage]}/{path.name} is damaged" in rerun.said()
    assert list(path.parent.glob(f"{path.name}.damaged-*"))
    assert contents(home) == reference.after[stage]


WORK = [
    ("diffusion", "checkpoint"),
    ("pretraining", "checkpoint"),
    ("candidates", "bank.npy"),
    ("candidates", "done.npy"),
]


@pytest.mark.item("2 damage", "unfinished work")
@pytest.mark.parametrize("name, file", WORK)
@pytest.mark.rounds(short=1, long=8)
def test_damaged_work_is_not_gone_on_from(reference, place, name, file, round):
    home = reference.before_stage(name, place)
    assert Stage(name, home, die_after, (STEPS[name] // 2,)).wait() == -9
    [path] = home.glob(f"artifacts/*/.*.work/{file}")
    draw = random.Random(f"work {name} {file} {round}")
    way = [flip, truncate, empty][round % 3]
    way(path, draw)
    rerun = Stage(name, home)
    assert rerun.wait() == 0, rerun.said()
    # A bit that flips in rows that are not done yet is overwritten without a word.
    assert "damaged" in rerun.said() or (file, way) == ("bank.npy", flip)
    assert contents(home) == reference.after[name]
    assert not leftovers(home)


@pytest.mark.item("2 damage", "unfinished work")
def test_checkpoint_of_another_run_is_not_used(reference, place):
    """Copied over by hand: same shapes, other settings."""
    foreign, home = place / "foreign", place / "own"
    overrides = OVERRIDES | {"diffusion.lr": 1e-3}
    assert Stage("diffusion", foreign, die_after, (20,), overrides).wait() == -9
    assert Stage("diffusion", home, die_after, (20,)).wait() == -9
    [source], [target] = (
        folder.glob("artifacts/*/.*.work/checkpoint") for folder in (foreign, home)
    )
    shutil.copyfile(source, target)
    rerun = Stage("diffusion", home)
    assert rerun.wait() == 0 and "damaged" in rerun.said(), rerun.said()
    assert contents(home) == reference.after["diffusion"]


# Pickles ------------------------------------------------------------------------------------------


class Malicious:
    """Touches a file when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def test_the_pickle_does_its_mischief_where_pickles_are_read(tmp_path):
    pickle.loads(pickle.dumps(Malicious(tmp_path / "trace")))
    assert (tmp_path / "trace").exists()


@pytest.mark.item("7 pickles", "artifacts")
@pytest.mark.parametrize(
    "folder, name, read",
    [
        ("diffusion", "diffusion_pytorch_model.safetensors", load_file),
        ("pretrain", "encoder.safetensors", load_file),
        ("candidates", "bank.npy", lambda path: np.load(path, mmap_mode="r")),
        ("diffusion", "losses.npy", np.load),
    ],
)
def test_pickle_in_the_store_is_never_unpickled(finished, tmp_path, folder, name, read):
    """Even where somebody made the manifest fit: the readers of the product read no pickle."""
    [source] = (finished / "artifacts" / folder).glob("[0-9a-f]*")
    path = tmp_path / "artifacts" / folder / source.name
    shutil.copytree(source, path)
    (path / name).write_bytes(pickle.dumps(Malicious(tmp_path / "trace")))
    manifest = json.loads((path / "manifest.json").read_text())
    resigned(path, sha256=manifest["sha256"] | {name: artifacts._sha256(path / name)})
    artifact = Store(tmp_path / "artifacts").find(request_of(manifest))
    with pytest.raises((ValueError, SafetensorError)):
        read(artifact / name)
    np.save(
        tmp_path / "object.npy",
        np.array([Malicious(tmp_path / "trace")], object),
        allow_pickle=True,
    )
    with pytest.raises((ValueError, SafetensorError)):
        read(tmp_path / "object.npy")
    assert not (tmp_path / "trace").exists()


@pytest.mark.item("7 pickles", "unfinished work")
@pytest.mark.parametrize("name, file", WORK)
def test_pickle_in_the_work_folder_is_set_aside(reference, place, tmp_path, name, file):
    home = reference.before_stage(name, place)
    assert Stage(name, home, die_after, (STEPS[name] // 2,)).wait() == -9
    [path] = home.glob(f"artifacts/*/.*.work/{file}")
    path.write_bytes(pickle.dumps(Malicious(tmp_path / "trace")))
    rerun = Stage(name, home)
    assert rerun.wait() == 0 and "damaged" in rerun.said(), rerun.said()
    assert contents(home) == reference.after[name] and not (tmp_path / "trace").exists()


@pytest.mark.item("7 pickles", "source")
def test_no_code_of_the_package_reads_pickles():
    """`torch.load` without weights_only=True, numpy with allow_pickle=True, pickle itself.

    CIFAR's own batches are pickles; they are opened after their published checksum was compared.
    """
    package = Path(clsp_utils.__file__).parent
    paths = sorted(package.rglob("*.py"))
    assert {path.parent.name for path in paths} >= {
        "data",
        "diffusion",
        "contrastive",
        "runtime",
        "store",
    }
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, (ast.Import, ast.ImportFrom))
                else []
            )
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            if not module.startswith("clsp_utils"):  # whose own `load` reads images
                assert not {"dill", "cloudpickle", "joblib", "load", "loads", "Unpickler"} & set(
                    names
                ), path
            assert module.split(".")[0] not in {"pickle", "dill", "cloudpickle"}, path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert not called.startswith("pickle.") or (path, called) == (
                    package / "data" / "published.py",
                    "pickle.loads",
                ), path
                options = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert options.get("allow_pickle", "False") == "False", path
                if ast.unparse(node.func) == "torch.load":
                    assert options.get("weights_only") == "True", path


def test_a_file_that_was_not_verified_is_not_handed_out(finished):
    [path] = (finished / "artifacts" / "scores").glob("[0-9a-f]*")
    manifest = json.loads((path / "manifest.json").read_text())
    artifact = Store(finished / "artifacts").find(request_of(manifest))
    (path / "planted").write_text("")
    with pytest.raises(StoreError, match="planted"):
        artifact / "planted"
    (path / "planted").unlink()
