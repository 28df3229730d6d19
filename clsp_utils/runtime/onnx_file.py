"""Networks as ONNX files, for programs without PyTorch: written if they compute the same."""

import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from clsp_utils.runtime.weights import WeightsError
from clsp_utils.store import replace_file

PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # what the extra "export" installs
TOLERANCE = 1e-3  # of the largest number of an output


class _OneTuple(nn.Module):
    """A network whose inputs are one tuple, however many there are."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.net(*inputs)


def missing_for_onnx() -> list[str]:
    """Which packages `write_onnx` lacks here."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def write_onnx(
    net: nn.Module, path: Path, inputs: Mapping[str, Tensor], outputs: Sequence[str]
) -> float:
    """Writes a network as ONNX once its outputs are those of torch.

    Args:
        net: in eval mode, on the CPU; it takes `inputs` in their order and returns one tensor, or a
            tuple of them.
        inputs: on which both are compared: name -> a number, or a tensor of N >= 2 rows. The file
            takes any number of rows.
        outputs: names of what it returns.

    Returns:
        The largest difference of an output, relative to its largest number.

    Raises:
        WeightsError: packages are missing, or the difference is above `TOLERANCE`.
    """
    if missing := missing_for_onnx():
        raise WeightsError(f'ONNX needs {", ".join(missing)}: pip install -e ".[export]".')
    import onnxruntime

    rows = torch.export.Dim.DYNAMIC
    with tempfile.TemporaryDirectory() as place:
        torch.onnx.export(
            _OneTuple(net).eval(), tuple(x[:2] if x.dim() else x for x in inputs.values()),
            new := Path(place) / path.name, input_names=list(inputs), output_names=list(outputs),
            dynamic_shapes=(tuple({0: rows} if x.dim() else None for x in inputs.values()),),
            dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
        model = new.read_bytes()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found = session.run(list(outputs), {name: x.numpy() for name, x in inputs.items()})
    with torch.inference_mode():
        expected = net(*inputs.values())
    expected = [expected] if isinstance(expected, Tensor) else expected
    difference = max(
        float(np.abs(ours - its.numpy()).max() / np.abs(its.numpy()).max())
        for ours, its in zip(found, expected, strict=True)
    )
    if not difference <= TOLERANCE:
        raise WeightsError(
            f"{path.name} computes something else than torch (by {difference:.1e} of the largest)."
        )
    replace_file(path, model)
    return difference
