"""What the authors report."""

from pathlib import Path

import pandas as pd


def reported_results() -> pd.DataFrame:
    """Linear top-1, in percent: columns source, dataset, method, backbone, top1, evaluated.

    Only "offline linear, authors" is a measure like ours: a classifier on frozen features.
    """
    return pd.read_csv(Path(__file__).with_name("reported_results.csv"), comment="#")


def reported_transfer() -> pd.DataFrame:
    """Linear evaluation on other data, in percent, a row per encoder and data set.

    How the features were read there is not stated, nor which sets are scored per class.

    Returns:
        Columns source, trained_on, dataset (`config.TransferName`), method, backbone, score.
    """
    return pd.read_csv(Path(__file__).with_name("reported_transfer.csv"), comment="#")


def reported_curves() -> pd.DataFrame:
    """The authors' training curves, a row per point: method, dataset, backbone, epoch, what, value.

    `what` is "linear_top1" (percent), "contrastive_loss" (NT-Xent; of SimCLR and what builds on it)
    or "clsp_loss" (the third view's term, in [0, 4], without lambda). One run a curve.
    """
    return pd.read_csv(Path(__file__).with_name("reported_curves.csv"), comment="#")
