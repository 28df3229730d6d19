"""Measures of encoders and of images: probes of features, statistics over seeds, what images show.

Takes networks, images and tables as they are; knows nothing of training, the store or processes.
"""

from clsp_utils.evaluation.factors import background_match, edges, margin, nearest_images
from clsp_utils.evaluation.features import extract_features
from clsp_utils.evaluation.few_labels import few_label_accuracy, few_rows
from clsp_utils.evaluation.fidelity import frechet, inception_features
from clsp_utils.evaluation.geometry import GEOMETRY, alignment, rank_me, uniformity
from clsp_utils.evaluation.judge import Judge
from clsp_utils.evaluation.layers import background_r2, layer_features, score_layers
from clsp_utils.evaluation.logistic import Labelled, choose_c, logistic_probe, transfer_score
from clsp_utils.evaluation.measures import measure
from clsp_utils.evaluation.positives import diversity, label_agreement, purity
from clsp_utils.evaluation.probes import (
    accuracy,
    choose_k,
    held_out_knn,
    held_out_rows,
    knn,
    linear_logits,
    linear_probe,
    mean_per_class,
    score,
    top_k_accuracy,
)
from clsp_utils.evaluation.reported import reported_curves, reported_results, reported_transfer
from clsp_utils.evaluation.significance import correlation, holm, interval, paired, verdict
