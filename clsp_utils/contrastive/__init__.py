"""Learning from views: augmentation, encoder, losses, one module per method, one loop for all.

Knows nothing of how candidates are made, nor of how encoders are kept or judged.
"""

from clsp_utils.contrastive.augment import augment
from clsp_utils.contrastive.backbone import (
    Encoder,
    Joined,
    backbones,
    build_backbone,
    training_flops,
)
from clsp_utils.contrastive.export import (
    ImageEncoder,
    load_exported,
    save_exported,
    save_onnx,
    usage,
)
from clsp_utils.contrastive.losses import (
    clsp_term,
    feature_contrast,
    info_nce,
    nearest,
    neighbour_nce,
    nt_xent,
    sup_con,
)
from clsp_utils.contrastive.methods import Batch, Method, build_method
from clsp_utils.contrastive.methods.swav import sinkhorn
from clsp_utils.contrastive.multi_view import cacr, mv_dhel, mv_info_nce, pairwise_nt_xent
from clsp_utils.contrastive.pretrain import COLLAPSED, pretrain
from clsp_utils.contrastive.pretrained import load_encoder
