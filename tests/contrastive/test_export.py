"""An exported encoder is the encoder, for another program too; what is damaged is refused."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from networks_of_others import one_sentence, randomised
from PIL import Image

from clsp_utils import runtime
from clsp_utils.config import Backbone
from clsp_utils.contrastive import ImageEncoder, build_backbone, load_exported, save_exported
from clsp_utils.contrastive.export import onnx_usage, save_onnx, usage
from clsp_utils.data import ChannelStatistics, DataError
from clsp_utils.evaluation import extract_features
from clsp_utils.runtime import WeightsError, missing_for_onnx

SIZE = 16
SHAPE = Backbone(layers=(1, 1), width=8)
STATISTICS = ChannelStatistics((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
FACTS = {"training": {"method": "CLSP-SimCLR"}, "scores": {"knn": 0.5}}


def pictures(n=5):
    return np.random.default_rng(0).integers(0, 256, (n, SIZE, SIZE, 3), np.uint8)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return ImageEncoder(randomised(build_backbone(SHAPE)).eval(), STATISTICS, SIZE)


@pytest.fixture
def exported(encoder, tmp_path):
    save_exported(encoder, SHAPE, tmp_path / "home", FACTS)
    return tmp_path / "home"


def test_features_are_those_of_the_backbone_on_normalised_images(encoder):
    x = torch.from_numpy(pictures())
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in STATISTICS)
    by_hand = encoder.backbone((x.permute(0, 3, 1, 2) / 255 - mean) / std)
    assert encoder.n_features == 16 and by_hand.shape == (5, 16)
    torch.testing.assert_close(encoder(x), by_hand)
    extracted = extract_features(encoder.backbone, pictures(), STATISTICS, "fp32")
    if runtime.device().type == "cpu":
        assert torch.equal(encoder(x), extracted)
    torch.testing.assert_close(encoder(x), extracted)


def test_what_is_read_again_is_what_was_written(encoder, exported):
    x, again = torch.from_numpy(pictures()), load_exported(exported)
    assert torch.equal(again(x), encoder(x))
    assert (again.size, again.n_features, again.statistics) == (SIZE, 16, STATISTICS)
    assert not again.training and not any(one.requires_grad for one in again.parameters())
    assert sorted(path.name for path in exported.iterdir()) == [
        "README.md", "card.json", "encoder.safetensors",
    ]  # fmt: skip


def test_the_card_says_what_it_is(exported):
    card = json.loads((exported / "card.json").read_text())
    assert card["training"] == FACTS["training"] and card["scores"] == FACTS["scores"]
    assert card["size"] == SIZE and card["backbone"]["width"] == 8
    text = (exported / "README.md").read_text()
    for part in ("`training.method` | CLSP-SimCLR", "load_exported('home')", "`scores.knn` | 0.5"):
        assert part in text
    assert str(exported.parent) not in text


def no_card(folder):
    (folder / "card.json").unlink()


def broken_card(folder):
    (folder / "card.json").write_text('{"size":')


def card_of_something_else(folder):
    (folder / "card.json").write_text('["a list"]')


def card_of_another_network(folder):
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"backbone": {"width": 0}}))


def no_weights(folder):
    (folder / "encoder.safetensors").unlink()


def broken_weights(folder):
    path = folder / "encoder.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def weights_of_another_width(folder):
    other = Backbone(layers=(1, 1), width=4)
    net = ImageEncoder(build_backbone(other), STATISTICS, SIZE)
    save_exported(net, SHAPE, folder, {})


@pytest.mark.parametrize("damage, said", [
    (no_card, "holds no exported encoder"), (broken_card, "card.json' is damaged"),
    (card_of_something_else, "card.json' is damaged"),
    (card_of_another_network, "card.json' is damaged"), (no_weights, "is not a file"),
    (broken_weights, "is damaged"), (weights_of_another_width, "does not fit ResNet"),
])  # fmt: skip
def test_a_damaged_export_is_refused_in_one_sentence(exported, damage, said):
    damage(exported)
    with pytest.raises(WeightsError, match=said) as error:
        load_exported(exported)
    one_sentence(error)


def test_files_are_read_as_in_the_training(encoder, tmp_path):
    for i, image in enumerate(pictures(2)):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    read = encoder.read([tmp_path / "0.png", str(tmp_path / "1.png")])
    assert np.array_equal(read, pictures(2))
    (tmp_path / "broken.png").write_text("no picture")
    with pytest.raises(DataError, match=r"broken.png: this picture is unreadable\.$"):
        encoder.read([tmp_path / "broken.png"])


def says(lines, folder):
    """What a program of its own prints, which runs in another folder."""
    command = [sys.executable, "-c", lines]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_five_lines_of_another_program_use_it(exported, tmp_path):
    Image.fromarray(pictures(1)[0]).save(tmp_path / "a.png")
    lines = usage("home", "a.png")
    assert len([line for line in lines.splitlines() if line]) == 5
    assert lines in (exported / "README.md").read_text().replace("picture.jpg", "a.png")
    assert says(lines, tmp_path) == "(1, 16)"


@pytest.mark.skipif(bool(missing_for_onnx()), reason="the extra export is missing")
def test_onnx_takes_pictures_as_they_are(encoder, exported, tmp_path):
    import onnxruntime

    assert save_onnx(encoder, exported, pictures()) < 1e-5
    [found] = onnxruntime.InferenceSession(exported / "encoder.onnx").run(
        None, {"pictures": pictures()}
    )
    expected = encoder(torch.from_numpy(pictures())).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    Image.fromarray(pictures(1)[0]).save(tmp_path / "a.png")
    lines = onnx_usage(SIZE, "home", "a.png")
    assert lines in (exported / "README.md").read_text().replace("picture.jpg", "a.png")
    assert says(lines, tmp_path) == "(1, 16)"
