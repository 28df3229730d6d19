"""Measures of encoders and of images: probes of features, statistics over seeds, what images show.

Takes networks, images and tables as they are; knows nothing of training, the store or processes.
"""

from clsp_utils.evaluation.factors import background_match, edges, margin, nearest_images
from clsp_utils.evaluation.features import extract_features
from clsp_utils.evaluation.fidelity import frechet
from clsp_utils.evaluation.geometry import alignment, rank_me, uniformity
from clsp_utils.evaluation.judge import Judge
from clsp_utils.evaluation.probes import (
    accuracy,
    choose_k,
    held_out_knn,
    held_out_rows,
    knn,
    linear_probe,
    score,
)
from clsp_utils.evaluation.reported import reported_results
from clsp_utils.evaluation.significance import holm, interval, paired
