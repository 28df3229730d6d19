"""Features: batches make no difference, and a precision lasts as long as the call."""

import numpy as np
import pytest
import torch
from torch import nn

from clsp_utils.data import ChannelStatistics
from clsp_utils.evaluation import extract_features

STATISTICS = ChannelStatistics((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
PIXELS = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("batch", [1, 3, 10, 1000])
def test_extract_features_in_batches_is_one_pass(batch):
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    net = nn.Sequential(convolution, norm, nn.Flatten(), nn.Linear(144, 5)).eval()
    mean, std = (torch.tensor(s).view(1, 3, 1, 1) for s in STATISTICS)
    with torch.no_grad():
        expected = net((torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255 - mean) / std)
    found = extract_features(net, PIXELS, STATISTICS, "fp32", batch)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_precisions_can_follow_each_other_in_one_process():
    # A notebook may open a profile twice, the second time with precision=fp32.
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).eval()
    first, half, again = (
        extract_features(net, PIXELS, STATISTICS, p) for p in ("fp32", "bf16", "fp32")
    )
    assert torch.equal(first, again) and not torch.equal(first, half)
    torch.testing.assert_close(first, half, rtol=0.05, atol=0.05)
