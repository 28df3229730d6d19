"""Synthetic positives: how they are sampled, and the bank that holds an anchor's candidates.

Knows nothing of the training of encoders.
"""

from clsp_utils.positives.bank import (
    bank_digest,
    draw_candidates,
    fill_bank,
    inflate,
    open_bank,
    read_bank,
)
from clsp_utils.positives.conditional import conditional_samples
from clsp_utils.positives.interpolation import interpolate, mix_in_anchor
from clsp_utils.positives.representation import cluster, standardise
