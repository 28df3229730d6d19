"""Every setting, its range, and the named profiles. Knows nothing of torch.

Settings are frozen classes that are checked when they are made; a profile is what differs from
their defaults; overrides change single fields by dotted names.
"""

from clsp_utils.config.methods import (
    CACR,
    CONTRASTIVE,
    MCL,
    METHODS,
    NNCLR,
    All4One,
    FullViews,
    Method,
    MoCoV2,
    MultiView,
    Recipe,
    SimCLR,
    Study,
    Supervised,
    SwAV,
    ThirdView,
    Training,
    View,
)
from clsp_utils.config.overrides import (
    ConfigError,
    alike,
    as_dict,
    change,
    dotted,
    merge,
    nested,
    validate,
)
from clsp_utils.config.paths import PROJECT, home, is_hub_name
from clsp_utils.config.profiles import BY_DATA_SET, PAPER_BY_DATA_SET, PROFILES
from clsp_utils.config.ranges import (
    Beta,
    Count,
    CountOrNone,
    NotNegative,
    Positive,
    Precision,
    Seed,
    Several,
    Share,
    Shares,
    Step,
    Steps,
    TimeBound,
    frozen,
    local,
)
from clsp_utils.config.settings import (
    SNAPSHOTS,
    Backbone,
    ClassSampling,
    Clustering,
    Data,
    Diffusion,
    FewLabels,
    Interpolation,
    LogisticProbe,
    PlainSampling,
    Probe,
    RepresentationSampling,
    Sampler,
    Sampling,
    Transfer,
    TransferName,
    UNetShape,
    Views,
)
