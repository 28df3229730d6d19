"""The bank: survives kills, damage and full disks, and gives an anchor its own candidates."""

import multiprocessing
import resource
import shutil
import subprocess

import numpy as np
import pytest
import torch

from clsp_utils.data import DataError
from clsp_utils.positives.bank import (
    bank_digest,
    draw_candidates,
    fill_bank,
    inflate,
    open_bank,
    read_bank,
)
from clsp_utils.runtime import ALONE, Share, seed_for

ANCHORS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
K, BATCH = 2, 2  # 5 anchors: batches of 2, 2, 1


def make(rows, seed):
    """Candidates that depend on anchor and seed, as those of a model do."""
    anchors = ANCHORS[rows]
    noise = np.random.default_rng(seed).integers(0, 256, (len(anchors), K, 8, 8, 3), dtype=np.uint8)
    return anchors[:, None] // 2 + noise // 2


def bank_in(folder, make=make, shares=(ALONE,)):
    folder.mkdir(exist_ok=True)
    open_bank(folder, len(ANCHORS), K, BATCH, ANCHORS.shape[1:])
    for share in shares:
        fill_bank(folder, make, BATCH, 0, share)
    return np.load(folder / "bank.npy", mmap_mode="r")


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def counted():
    """`counted(n)` makes candidates and dies after n batches; `counted.sizes` notes their sizes."""

    def prepare(after=None):
        def counting(rows, seed):
            if len(prepare.sizes) == after:
                raise Killed
            out = make(rows, seed)
            prepare.sizes.append(len(out))
            return out

        return counting

    prepare.sizes = []
    return prepare


def test_bank_is_a_memory_mapped_file_with_every_row(tmp_path):
    bank = bank_in(tmp_path)
    assert isinstance(bank, np.memmap)
    assert bank.shape == (5, 2, 8, 8, 3) and bank.dtype == np.uint8
    for i, rows in enumerate((slice(0, 2), slice(2, 4), slice(4, 5))):
        assert np.array_equal(bank[rows], make(rows, seed_for(0, "bank", i)))


@pytest.mark.parametrize("after", [0, 1, 2])
def test_resumed_bank_equals_uninterrupted_bit_for_bit(tmp_path, counted, after):
    unbroken = bank_in(tmp_path / "unbroken")
    with pytest.raises(Killed):
        bank_in(tmp_path / "resumed", counted(after))
    resumed = bank_in(tmp_path / "resumed", counted())
    assert counted.sizes == [2, 2, 1]  # no batch was made twice
    assert np.array_equal(resumed, unbroken)


@pytest.mark.parametrize("missing", ["bank.npy", "done.npy"])
def test_half_of_a_bank_starts_anew(tmp_path, missing):
    unbroken = np.array(bank_in(tmp_path))
    (tmp_path / missing).unlink()
    assert np.array_equal(bank_in(tmp_path), unbroken)


def test_a_bank_does_not_depend_on_how_many_fill_it(tmp_path, counted):
    unbroken = bank_in(tmp_path / "one")
    # The third of three fills its part, is cut off from the others, and one goes on alone.
    more = bank_in(tmp_path / "more", counted(), (Share(2, 3), Share(1, 3), ALONE))
    assert np.array_equal(more, unbroken)
    assert counted.sizes == [1, 2, 2]  # nothing twice


# Damage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["bank.npy", "done.npy"])
def test_a_batch_that_was_damaged_is_named_and_made_anew(tmp_path, counted, capsys, file):
    unbroken = np.array(bank_in(tmp_path))
    content = np.load(tmp_path / file, mmap_mode="r+")
    content[1, -1] ^= 1  # anchor 1 is of batch 0
    content.flush()
    assert np.array_equal(bank_in(tmp_path, counted()), unbroken)
    batch = {"bank.npy": 0, "done.npy": 1}[file]
    assert f"Batch {batch} of {tmp_path / 'bank.npy'} is damaged" in capsys.readouterr().out
    assert counted.sizes == [2]


@pytest.mark.parametrize("damage", [
    lambda whole: whole[:-1],
    lambda whole: b"",
    lambda whole: b"\x80\x04K\x01." + whole[5:],  # a pickle's beginning
    lambda whole: whole.replace(b"|u1", b"|i1"),
], ids=["truncated", "empty", "pickle", "another dtype"])  # fmt: skip
@pytest.mark.parametrize("file", ["bank.npy", "done.npy"])
def test_a_damaged_file_is_named_and_set_aside(tmp_path, capsys, file, damage):
    unbroken = np.array(bank_in(tmp_path))
    damaged = damage((tmp_path / file).read_bytes())
    (tmp_path / file).write_bytes(damaged)
    assert np.array_equal(bank_in(tmp_path), unbroken)
    assert f"{tmp_path / file} is damaged" in capsys.readouterr().out
    assert (tmp_path / file).with_suffix(".damaged").read_bytes() == damaged


def test_a_bank_of_another_shape_is_not_gone_on_from(tmp_path):
    bank_in(tmp_path)
    open_bank(tmp_path, len(ANCHORS), K + 1, BATCH, ANCHORS.shape[1:])
    assert np.load(tmp_path / "bank.npy").shape == (5, 3, 8, 8, 3)
    assert not np.load(tmp_path / "done.npy").any()


# Full disks -------------------------------------------------------------------------------------


def fill_three_megabytes(folder):
    open_bank(folder, 1000, 1, 10, (32, 32, 3))
    fill_bank(folder, lambda rows, seed: np.full((10, 1, 32, 32, 3), 1, np.uint8), 10, 0)


def assert_refused(folder, reason):
    with pytest.raises(OSError, match=reason):
        fill_three_megabytes(folder)
    assert not (folder / "bank.npy").exists()


def test_every_byte_of_an_open_bank_is_on_the_disk(tmp_path):
    open_bank(tmp_path, 1000, 1, 10, (32, 32, 3))
    for path in (tmp_path / "bank.npy", tmp_path / "done.npy"):
        assert path.stat().st_blocks * 512 >= path.stat().st_size
        assert not np.load(path).any()


def test_a_file_that_may_not_grow_is_told(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
    try:
        assert_refused(tmp_path, "File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    fill_three_megabytes(tmp_path)
    assert np.load(tmp_path / "bank.npy").all()


def test_a_full_disk_is_told(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "bank", str(tmp_path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk is made with `mount -t tmpfs`, which only root may")
    try:
        # In a process of its own: a signal would end it, were there holes in the file.
        job = multiprocessing.get_context("fork").Process(
            target=assert_refused, args=(tmp_path, "No space left on device")
        )
        job.start(), job.join()
        assert job.exitcode == 0
        subprocess.run(["mount", "-o", "remount,size=8m", str(tmp_path)], check=True)
        fill_three_megabytes(tmp_path)
        assert np.load(tmp_path / "bank.npy").all()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


# Drawing ----------------------------------------------------------------------------------------


@pytest.fixture
def numbered():
    """A bank of 50 anchors in which a pixel of candidate j of anchor i says (i, j)."""
    bank = np.zeros((50, 4, 2, 2, 3), np.uint8)
    bank[..., 0] = np.arange(50)[:, None, None, None]
    bank[..., 1] = np.arange(4)[:, None, None]
    return bank


def g(seed):
    return torch.Generator().manual_seed(seed)


def test_draw_candidates_picks_from_the_anchors_own_row(numbered):
    anchors = torch.randperm(50, generator=g(0))[:40]
    drawn = draw_candidates(numbered, anchors, g(1))
    assert drawn.shape == (40, 2, 2, 3) and drawn.dtype == torch.uint8
    assert torch.equal(drawn[:, 0, 0, 0].long(), anchors)
    assert set(drawn[:, 0, 0, 1].tolist()) == {0, 1, 2, 3}
    assert not torch.equal(drawn, draw_candidates(numbered, anchors, g(2)))


@pytest.mark.parametrize("turn", [0, 3])
def test_in_turn_all_anchors_get_the_same_candidate_of_their_own(numbered, turn):
    anchors = torch.randperm(50, generator=g(0))[:40]
    drawn = draw_candidates(numbered, anchors, g(1), turn=turn)
    assert torch.equal(drawn[:, 0, 0, 0].long(), anchors) and (drawn[:, 0, 0, 1] == turn).all()


def test_inflation_puts_every_candidate_behind_the_anchors(numbered):
    anchors, labels = np.full((50, 2, 2, 3), 255, np.uint8), np.arange(50) % 7
    images, own = inflate(anchors, labels, numbered)
    assert images.shape == (250, 2, 2, 3) and images.dtype == np.uint8 and len(own) == 250
    assert (images[:50] == 255).all() and np.array_equal(own[:50], labels)
    found = [tuple(image[0, 0, :2]) for image in images[50:]]
    assert found == [(i, j) for i in range(50) for j in range(4)]
    assert np.array_equal(own[50:], images[50:, 0, 0, 0] % 7)


def test_shares_draw_what_the_whole_batch_draws(numbered):
    anchors = torch.randperm(50, generator=g(0))[:40]
    whole = draw_candidates(numbered, anchors, g(1))
    for rank in range(2):
        own = draw_candidates(numbered, anchors, g(1), Share(rank, 2))
        assert torch.equal(own, whole[rank::2])


# Files of others ----------------------------------------------------------------------------------

CANDIDATES = np.random.default_rng(3).integers(0, 256, (6, 4, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def file(tmp_path):
    """`file(array)` keeps an array as others release theirs, and gives its path."""

    def keep(array, name="bank.npy"):
        np.save(tmp_path / name, array)
        return str(tmp_path / name)

    return keep


@pytest.mark.parametrize("k", [1, 3, 4])
def test_a_file_gives_the_first_candidates_of_each_anchor_memory_mapped(file, k):
    found = read_bank(file(CANDIDATES), 6, k, 8)
    assert isinstance(found, np.memmap) and np.array_equal(found, CANDIDATES[:, :k])
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0


NO_BANKS = {
    "anchors": CANDIDATES[:5],
    "candidates": CANDIDATES[:, :2],
    "size": CANDIDATES[:, :, :4, :4],
    "not square": CANDIDATES[:, :, :, :4],
    "channels": CANDIDATES[..., :1],
    "one candidate, without its dimension": CANDIDATES[:, 0],
    "channels first": CANDIDATES.transpose(0, 1, 4, 2, 3),
    "dtype": CANDIDATES.astype(np.float32),
    "signed": CANDIDATES.astype(np.int8),
    "a number": np.uint8(3),
}


def one_sentence(error, path):
    text = str(error.value)
    assert path in text and text.endswith(".") and "\n" not in text
    return text


@pytest.mark.parametrize("array", NO_BANKS.values(), ids=NO_BANKS)
def test_a_file_of_something_else_is_refused_in_one_sentence(file, array):
    path = file(array)
    with pytest.raises(DataError) as error:
        read_bank(path, 6, 3, 8)
    found = one_sentence(error, path)
    assert "(6, 3 or more, 8, 8, 3)" in found and f"{array.dtype} {array.shape}" in found


@pytest.mark.parametrize("damage", ["missing", "cut off", "text", "archive", "objects"])
def test_a_file_that_cannot_be_read_is_refused_in_one_sentence(file, tmp_path, damage):
    path = file(CANDIDATES)
    whole = (tmp_path / "bank.npy").read_bytes()
    if damage == "missing":
        path = str(tmp_path / "nothing.npy")
        with pytest.raises(DataError) as error:
            bank_digest(path)
        one_sentence(error, path)
    elif damage == "archive":
        path = str(tmp_path / "a.npz")
        np.savez(path, CANDIDATES)
    elif damage == "objects":
        path = file(np.array([{}], dtype=object), "objects.npy")
    else:
        (tmp_path / "bank.npy").write_bytes(whole[:-9] if damage == "cut off" else b"text")
    with pytest.raises(DataError) as error:
        read_bank(path, 6, 3, 8)
    one_sentence(error, path)


def test_the_digest_is_of_the_content(file):
    one, moved, other = file(CANDIDATES), file(CANDIDATES, "b.npy"), file(CANDIDATES[::-1], "c.npy")
    assert bank_digest(one) == bank_digest(moved) != bank_digest(other)
