"""What the tests of all checks share."""

import pytest
import torch

from clsp_utils.book import check
from clsp_utils.config import UNetShape
from clsp_utils.diffusion import build_unet


@pytest.fixture
def said(capsys):
    """`said(name, answer, **given)`: what a check prints."""

    def ask(name, answer, **given):
        assert check(name, answer, **given) is None
        return capsys.readouterr().out

    return ask


@pytest.fixture(scope="session")
def unet():
    """A small UNet for 8 pixels that was never trained."""
    torch.manual_seed(0)
    return build_unet(UNetShape(channels=(8, 16), groups=4), 8).eval()
