"""Notebook 10 on folders that people bring, through the command line."""

import json
import os
import subprocess
import sys

import nbformat
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow


def run(home, folder):
    """Exit status and what is said of notebook 10 at smoke."""
    command = [sys.executable, "-m", "clsp_utils", "run", "10", "--profile", "smoke"]
    environment = os.environ | {"CLSP_HOME": str(home)}
    given = ["-p", f"data={folder}", "-p", "study.seeds=2"]
    done = subprocess.run([*command, *given], env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def save_pictures(folder, n, seed):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        pixels = rng.integers(0, 256, (20 + i % 3, 24, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.{('png', 'jpg')[i % 2]}")
    (folder / "broken.jpg").write_bytes((folder / "1.jpg").read_bytes()[:80])
    (folder / "empty.png").touch()


def with_classes(root):
    for seed, name in enumerate(("cat", "dog")):
        save_pictures(root / name, 24, seed)


def without_classes(root):
    save_pictures(root, 48, 0)


@pytest.mark.parametrize("make", [with_classes, without_classes])
def test_an_own_folder_with_broken_files_comes_to_an_encoder(tmp_path, make):
    make(tmp_path / "my pictures")
    status, said = run(tmp_path / "home", tmp_path / "my pictures")
    assert status == 0, said
    place = tmp_path / "home" / "build" / "smoke"
    card = json.loads((place / "encoders" / "my pictures" / "card.json").read_text())
    assert (card["scores"] is not None) == (make is with_classes)
    drawn = {path.name for path in (place / "folder" / "figures").glob("*.png")}
    assert {"10_folder.png", "10_candidates.png", "10_neighbours.png"} <= drawn
    executed = nbformat.read(place / "notebooks" / "10_your_own_images.ipynb", as_version=4)
    text = "".join(
        output.get("text", "") for cell in executed.cells for output in cell.get("outputs", [])
    )
    n_broken = 4 if make is with_classes else 2
    assert f"left out, unreadable: {n_broken}" in text and "it says: (1, " in text


@pytest.mark.parametrize("n, said", [(0, "no image in it"), (1, "1 picture(s) can be used")])
def test_a_folder_of_no_use_is_refused_before_anything_is_made(tmp_path, n, said):
    (tmp_path / "pictures").mkdir()
    for i in range(n):
        Image.new("RGB", (20, 20)).save(tmp_path / "pictures" / f"{i}.png")
    status, told = run(tmp_path / "home", tmp_path / "pictures")
    assert status == 1 and said in told and "DataError" in told
    assert not list((tmp_path / "home").rglob("manifest.json"))
