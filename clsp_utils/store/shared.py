"""A store that several processes of one job ask at once."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clsp_utils.runtime.distributed import broadcast, my_share
from clsp_utils.store.artifacts import Artifact, Request, Store, StoreError


class SharedStore(Store):
    """The first process leads, the others join in what it builds."""

    def find(self, request: Request) -> Artifact | None:
        share = my_share()
        if share.world == 1:
            return super().find(request)
        found = super().find(request) if share.rank == 0 else None
        return super().find(request) if broadcast(found is not None) else None

    def get(
        self,
        request: Request,
        build: Callable[[Path, Path], Any],
        notes: Mapping[str, Any] | None = None,
    ) -> Artifact:
        share = my_share()
        if share.world == 1:
            return super().get(request, build, notes)
        if share.rank == 0:

            def lead(out: Path, work: Path) -> None:
                broadcast(str(work))
                build(out, work)

            try:
                super().get(request, lead, notes)
            finally:
                broadcast(None)
        else:
            while (work := broadcast(None)) is not None:
                with tempfile.TemporaryDirectory() as out:  # the leader's files are those that stay
                    build(Path(out), Path(work))
        artifact = self.find(request)
        if artifact is None:
            raise StoreError(f"{request}: the leading process did not finish it.")
        return artifact
