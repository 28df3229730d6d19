"""Files of weights are data, never programs, and damaged ones are named."""

import itertools
import os
import pickle

import pytest
import safetensors.torch
import torch
from networks_of_others import WRAPPED, authors, one_sentence, tiny_unet
from torch import nn

from clsp_utils.contrastive import pretrained
from clsp_utils.diffusion.pretrained import load_diffusion
from clsp_utils.runtime import Diverged, WeightsError, fill, read_tensors, save_weights


def load_encoder(source):
    return pretrained.load_encoder(source, "cifar10")


READERS = [read_tensors, load_diffusion, load_encoder]


def test_what_is_saved_is_read(tmp_path):
    net = nn.BatchNorm1d(3)
    save_weights(net, tmp_path / "a.safetensors")
    tensors = read_tensors(tmp_path / "a.safetensors")
    assert tensors.keys() == net.state_dict().keys()
    assert all(torch.equal(tensors[key], value) for key, value in net.state_dict().items())


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    net = nn.BatchNorm1d(3)
    net.running_var[1] = torch.nan
    with pytest.raises(Diverged, match="not finite"):
        save_weights(net, tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_wrappers_and_prefixes_are_taken_off(wrap):
    state = nn.Linear(2, 3).state_dict()
    tensors = read_tensors(wrap(state))
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[key], state[key]) for key in state)


def test_tensors_that_do_not_fit_leave_the_network_as_it_is():
    net = nn.Linear(2, 3)
    before = net.weight.clone()
    with pytest.raises(
        WeightsError, match=r"The dictionary does not fit Linear.*bias: \(4,\) inst"
    ) as error:
        fill(net, {"weight": torch.zeros(3, 2), "bias": torch.zeros(4)}, {})
    one_sentence(error)
    assert torch.equal(net.weight, before)


@pytest.mark.parametrize("load", READERS)
@pytest.mark.parametrize(
    "value",
    [[1, 2], {"epoch": 1}, {"state_dict": {"a": "b"}}, torch.zeros(3), {0: torch.zeros(1)}],
    ids=str,
)
def test_a_file_without_a_state_dict(tmp_path, load, value):
    torch.save(value, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="a.pt' holds no state dict") as error:
        load(tmp_path / "a.pt")
    one_sentence(error)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize(
    ("how", "load"),
    [
        *itertools.product(["torch", "old torch", "pickle"], READERS),
        ("diffusers folder", load_diffusion),
    ],
)
def test_a_file_that_would_run_code_is_refused(tmp_path, how, load):
    trap, path = tmp_path / "trap", tmp_path / "a.pt"
    value = {"state_dict": authors((8,)).state_dict(), "more": Malicious(trap)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(value, protocol=2))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=how != "old torch")
    if how == "diffusers folder":
        tiny_unet().save_config(tmp_path)
        path.rename(tmp_path / "diffusion_pytorch_model.bin")
        path = tmp_path
    with pytest.raises(WeightsError, match="can run code") as error:
        load(path)
    one_sentence(error)
    assert not trap.exists()
    if path.is_file():  # the trap does spring where it is let
        torch.load(path, weights_only=False) if how != "pickle" else pickle.loads(path.read_bytes())
        assert trap.exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file(tmp_path, suffix, share):
    tensors, path = authors((8,)).state_dict(), tmp_path / f"a{suffix}"
    (torch.save if suffix == ".pt" else safetensors.torch.save_file)(tensors, path)
    os.truncate(path, int(share * path.stat().st_size))
    for load in READERS:
        with pytest.raises(WeightsError, match="damaged") as error:
            load(path)
        one_sentence(error)


def test_bytes_that_are_no_weights(tmp_path):
    path = tmp_path / "a.pt"
    for blob in (b"", b"hello", bytes(range(256)) * 9, b"\x80\x02}q\x00.", b"PK\x03\x04"):
        path.write_bytes(blob)
        for load in READERS:
            with pytest.raises(WeightsError, match="a.pt") as error:
                load(path)
            one_sentence(error)
