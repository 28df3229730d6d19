"""Results of long computations, each under a key made from exactly what shaped it.

Knows nothing of what it stores. `SharedStore`, for several processes, is in `store.shared`.
"""

from clsp_utils.store.artifacts import Artifact, Request, Store, StoreError
from clsp_utils.store.files import link_or_copy, locked, replace_file
