"""Images and their labels: the digits, published data sets, the user's own; and pixel conversions.

Knows nothing of models, training or results.
"""

from clsp_utils.data.drawn_sets import Splits
from clsp_utils.data.image_folder import read_image
from clsp_utils.data.images import (
    DataError,
    Images,
    by_class,
    first_three,
    printable,
    split_by_group,
    split_rows,
    unusable,
)
from clsp_utils.data.load import check_place, fingerprint, load
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
from clsp_utils.data.survey import Survey, survey, thumbnail, write_folder
from clsp_utils.data.transfer_sets import load_transfer, scored_per_class
