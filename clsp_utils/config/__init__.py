"""Every setting, its range, and the named profiles. Knows nothing of torch.

Settings are frozen classes that are checked when they are made; a profile is what differs from
their defaults; overrides change single fields by dotted names.
"""

from clsp_utils.config.methods import (
    CONTRASTIVE,
    METHODS,
    NNCLR,
    All4One,
    Method,
    MoCoV2,
    Recipe,
    SimCLR,
    Study,
    Supervised,
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
from clsp_utils.config.paths import PROJECT, home
from clsp_utils.config.profiles import BY_DATA_SET, PROFILES
from clsp_utils.config.ranges import (
    Count,
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
    Backbone,
    ClassSampling,
    Data,
    Diffusion,
    Interpolation,
    Probe,
    Sampling,
    UNetShape,
    Views,
)
