"""Networks as ONNX compute what torch does, on any number of rows, or are not written."""

import numpy as np
import pytest
import torch
from networks_of_others import one_sentence
from torch import nn

from clsp_utils.runtime import WeightsError, missing_for_onnx, onnx_file, write_onnx


class Shifted(nn.Module):
    """Of several inputs and outputs, one of them a number."""

    def forward(self, x, shift):
        return x + shift, x.sum(1)


X, SHIFT = torch.arange(12.0).view(4, 3), torch.tensor(2)
needs_onnx = pytest.mark.skipif(bool(missing_for_onnx()), reason="the extra export is missing")


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file.importlib.util, "find_spec", lambda name: None)
    assert missing_for_onnx() == ["onnx", "onnxscript", "onnxruntime"]
    with pytest.raises(WeightsError, match=r"onnx, onnxscript, onnxruntime: pip install") as error:
        write_onnx(nn.ReLU(), tmp_path / "net.onnx", {"x": X}, ["y"])
    one_sentence(error)
    assert not list(tmp_path.iterdir())


@needs_onnx
def test_it_computes_the_same_for_any_number_of_rows(tmp_path):
    import onnxruntime

    path = tmp_path / "net.onnx"
    assert write_onnx(Shifted(), path, {"x": X, "shift": SHIFT}, ["moved", "sum"]) == 0
    session = onnxruntime.InferenceSession(path)
    for n in (1, 2, 7):
        x = np.random.default_rng(0).random((n, 3), np.float32)
        moved, total = session.run(["moved", "sum"], {"x": x, "shift": np.array(5)})
        np.testing.assert_allclose(moved, x + 5, rtol=1e-6)
        np.testing.assert_allclose(total, x.sum(1), rtol=1e-6)


@needs_onnx
def test_what_computes_something_else_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "TOLERANCE", -1.0)
    with pytest.raises(WeightsError, match=r"net.onnx computes something else than") as error:
        write_onnx(nn.ReLU(), tmp_path / "net.onnx", {"x": X}, ["y"])
    one_sentence(error)
    assert not list(tmp_path.iterdir())
