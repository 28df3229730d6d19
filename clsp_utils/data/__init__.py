"""Images and their labels: the digits, published data sets, the user's own; and pixel conversions.

Knows nothing of models, training or results.
"""

from clsp_utils.data.images import (
    DataError,
    Images,
    by_class,
    first_three,
    printable,
    split_by_group,
    split_rows,
)
from clsp_utils.data.load import fingerprint, load
from clsp_utils.data.pixels import (
    LUMA,
    ChannelStatistics,
    grey,
    normalise,
    recolour,
    shift_hue,
    to_diffusion_range,
    to_float,
    to_uint8,
)
from clsp_utils.data.published import NORMALISATION
