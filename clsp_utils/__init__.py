"""Companion to "Contrastive Learning with Synthetic Positives" (ECCV'24).

The rooms, in the order of the paper. Arrows go up this list, or to the ground rooms below it.

    data         images whose content and background are known; published sets; folders
    diffusion    the UNet cut at its middle, training, sampling, weights of others
    positives    synthetic positives: interpolation, class samples, the bank
    contrastive  views, encoder, losses, one module per method, one loop for all
    evaluation   features, probes, the judge, measures of content and background, significance
    pipeline     stages carry results from one notebook to the next; `Companion` is the door
    book         running the notebooks; figures; exercises, and copies for a class

    config       every setting and its range (no torch)
    runtime      seeds, device and precision, checkpoints, several processes, workers
    store        artifacts: keyed, verified, atomic, locked
"""

import os

if os.name == "nt":
    raise ImportError("clsp_utils does not run on Windows itself: use it in WSL (wsl --install).")
