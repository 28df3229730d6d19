"""The ground that loops stand on: random numbers, device and precision, checkpoints, processes.

Knows nothing of the science. `workers` runs jobs side by side, `distributed` shares one job among
the processes of `accelerate launch`.
"""

from clsp_utils.runtime.checkpoint import Checkpoint, Diverged, OutOfTime, all_finite
from clsp_utils.runtime.device import (
    autocast,
    compiled_on_cuda,
    device,
    one_thread,
    resolve_precision,
    to_device,
    upload,
)
from clsp_utils.runtime.distributed import (
    ALONE,
    Share,
    broadcast,
    my_share,
    print_once,
    state,
    synchronise_batch_norm,
    wait_for_all,
)
from clsp_utils.runtime.loop import set_lr, warmup_constant, warmup_cosine, write_log
from clsp_utils.runtime.onnx_file import missing_for_onnx, write_onnx
from clsp_utils.runtime.seeding import generator, seed_for
from clsp_utils.runtime.weights import WeightsError, fill, read_tensors, save_weights
