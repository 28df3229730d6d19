"""What the authors report."""

from pathlib import Path

import pandas as pd


def reported_results() -> pd.DataFrame:
    """Linear top-1, in percent: columns source, dataset, method, backbone, top1, evaluated.

    Only "offline linear, authors" is a measure like ours: a classifier on frozen features.
    """
    return pd.read_csv(Path(__file__).with_name("reported_results.csv"), comment="#")
