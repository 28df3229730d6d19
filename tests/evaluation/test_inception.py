"""The network of FID: what is missing or wrong is said in one sentence, and no file runs code."""

import pickle
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from clsp_utils.config import ConfigError
from clsp_utils.evaluation import inception_features

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)


@pytest.fixture
def library(monkeypatch):
    """torch-fidelity with a network that knows two numbers."""

    class Extractor(torch.nn.Linear):
        def __init__(self, name, features, weights):
            super().__init__(3, 2, bias=False)
            assert features == ["2048"]
            self.load_state_dict(torch.load(weights, weights_only=False))

        def forward(self, x):
            assert x.dtype == torch.uint8 and x.shape[1:] == (3, 8, 8)
            return (super().forward(x.float().mean((2, 3))),)

    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Extractor
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_features_come_batch_by_batch(library, tmp_path):
    weight = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])
    torch.save({"weight": weight}, tmp_path / "weights.pth")
    found = inception_features(IMAGES, tmp_path / "weights.pth", batch=2)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, IMAGES.mean((1, 2))[:, [0, 2]], rtol=1e-5)


def test_other_weights_are_refused(library, tmp_path):
    torch.save({"bias": torch.zeros(2)}, tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match="holds no weights of FID's Inception"):
        inception_features(IMAGES, tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match="is not a file"):
        inception_features(IMAGES, tmp_path / "nothing.pth")


class Program:
    def __reduce__(self):
        return (print, ("it ran",))


def test_a_file_that_could_run_code_is_refused(library, tmp_path, capsys):
    torch.save({"weight": Program()}, tmp_path / "weights.pth", pickle_module=pickle)
    with pytest.raises(ConfigError, match="Python objects"):
        inception_features(IMAGES, tmp_path / "weights.pth")
    assert "it ran" not in capsys.readouterr().out


def test_without_the_library_one_sentence_says_so(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.delitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", False)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[fid\]'"):
        inception_features(IMAGES, tmp_path / "weights.pth")
