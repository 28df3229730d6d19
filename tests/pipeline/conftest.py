"""What tests of the pipeline share."""

import pytest
import torch

from clsp_utils.pipeline import stages


@pytest.fixture(autouse=True)
def _nothing_read_before():
    """What a test puts in the place of images and weights must not reach the next one."""
    stages.read_anew()
    yield
    stages.read_anew()


@pytest.fixture
def threads():
    """Sets the number of threads, and puts it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
