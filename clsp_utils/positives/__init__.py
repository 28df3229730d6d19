"""Synthetic positives: how they are sampled, and the bank that holds an anchor's candidates.

Knows nothing of the training of encoders.
"""

from clsp_utils.positives.bank import draw_candidates, fill_bank, open_bank
from clsp_utils.positives.class_conditional import class_samples
from clsp_utils.positives.interpolation import interpolate, mix_in_anchor
