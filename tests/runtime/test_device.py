"""Precision, compiled functions, and what is sent to a device."""

import importlib.util

import pytest
import torch

from clsp_utils.runtime import autocast, compiled_on_cuda, resolve_precision, upload


@pytest.mark.parametrize(
    "asked, native, expected",
    [
        ("fp32", True, "fp32"),
        ("bf16", False, "bf16"),
        ("auto", True, "bf16"),
        ("auto", False, "fp32"),
    ],
)
@pytest.mark.parametrize("gpu", [False, True])
def test_precision(monkeypatch, gpu, asked, native, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: native or including_emulation,
    )
    # On a GPU the processor must not matter.
    monkeypatch.setattr(
        torch.cpu, "_is_avx512_bf16_supported", lambda: native != gpu, raising=False
    )
    assert resolve_precision(asked) == expected


class OnCuda(torch.Tensor):
    """A tensor that says it is on a CUDA device."""

    is_cuda = True


@pytest.mark.parametrize("triton", [True, False])
def test_functions_are_compiled_once_on_cuda_where_triton_is_there_and_never_on_cpus(
    monkeypatch, triton
):
    compiled = []
    monkeypatch.setattr(
        torch,
        "compile",
        lambda f: compiled.append(f) or (lambda *args, **named: f(*args, **named) + 100),
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: triton or None)

    @compiled_on_cuda
    def plus(x, number=1):
        """Adds."""
        return x.sum().item() + number

    x = torch.ones(3)
    assert plus.__doc__ == "Adds." and plus(x) == 4 and not compiled
    fast = 100 if triton else 0
    assert (
        plus(x.as_subclass(OnCuda)) == 4 + fast
        and plus(x=x.as_subclass(OnCuda), number=2) == 5 + fast
    )
    assert len(compiled) == triton


@pytest.mark.parametrize("place, pins", [("cuda", 1), ("cpu", 0)])
def test_only_what_goes_to_cuda_is_pinned(monkeypatch, place, pins):
    calls = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: calls.append("pinned") or self)
    monkeypatch.setattr(
        torch.Tensor,
        "to",
        lambda self, where, non_blocking: calls.append((where, non_blocking)) or self,
    )
    where = torch.device(place)
    upload(torch.ones(2), where)
    assert calls == ["pinned"] * pins + [(where, True)]


@pytest.mark.parametrize(
    "precision, native, expected",
    [
        ("fp32", True, torch.float32),
        ("bf16", False, torch.bfloat16),
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
    ],
)
def test_autocast_is_in_the_precision_that_was_asked_for(monkeypatch, precision, native, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
    x = torch.ones(2, 2)
    with autocast(torch.device("cpu"), precision):
        assert (x @ x).dtype == expected
    assert (x @ x).dtype == torch.float32
