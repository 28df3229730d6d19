"""A data set in the four arrays of an .npz file."""

from pathlib import Path

import numpy as np

from clsp_utils.data.images import Split, unusable

ARRAYS = ("train_x", "train_y", "test_x", "test_y")


def read_npz(path: Path, n_classes: int) -> tuple[Split, Split]:
    """Training and test split from a file with `ARRAYS`, images being of any size.

    Raises:
        DataError: this is no such file; nothing in it is unpickled.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in ARRAYS if name not in file.files]
            arrays = {name: file[name] for name in ARRAYS if not missing}
    except Exception:  # of zipfile, zlib, numpy and others, each with errors of its own
        no_npz = (
            "this is no .npz file, or damaged, or it holds Python objects, which are not loaded"
        )
        raise unusable(path, no_npz) from None
    if missing:
        raise unusable(
            path, f"{', '.join(missing)} missing; the arrays must be {', '.join(ARRAYS)}"
        )
    for part in ("train", "test"):
        x, y = arrays[f"{part}_x"], arrays[f"{part}_y"]
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[3] != 3 or not x.size:
            must = "uint8 (N, H, W, 3), RGB"
            raise unusable(path, f"{part}_x is {x.dtype} {x.shape}; it must be {must}")
        if y.dtype.kind not in "iu" or y.shape != x.shape[:1]:
            must = f"{len(x)} integers"
            raise unusable(path, f"{part}_y is {y.dtype} {y.shape}; it must be {must}")
        if y.min() < -1 or y.max() >= n_classes:
            must = f"0 to {n_classes - 1}, or -1 for none"
            found = f"the labels {part}_y run from {y.min()} to {y.max()}"
            raise unusable(path, f"{found}; they must be {must}")
    train_x, train_y, test_x, test_y = (arrays[name] for name in ARRAYS)
    return (train_x, train_y.astype(np.int64)), (test_x, test_y.astype(np.int64))
