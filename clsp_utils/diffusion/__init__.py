"""The diffusion model: a UNet cut at its middle, training, sampling, weights of others.

Images are in [-1, 1] and T = 1000. Knows nothing of contrastive learning.
"""

from clsp_utils.diffusion.pretrained import (
    conditional_misfit,
    load_conditional,
    load_diffusion,
    unet_misfit,
    weights_digest,
)
from clsp_utils.diffusion.sampling import Edit, Variance, ancestral, plain_samples, sample
from clsp_utils.diffusion.train import condition_size, min_snr_weight, train
from clsp_utils.diffusion.unet import (
    BETAS,
    Features,
    build_unet,
    decode,
    encode,
    encode_noised,
    hide,
    level_outputs,
    mix,
    noise_schedule,
    pool,
)
