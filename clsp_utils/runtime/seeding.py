"""Random numbers that depend on names and steps alone.

Generators are made anew for each step from (seed, names, step). The step is thus the only position
that a loop has, and a resumed run draws what an unbroken one draws.
"""

import hashlib
from typing import Any

import torch


def seed_for(*names: Any) -> int:
    """A 63-bit seed from any printable names, for example `seed_for(0, "views", step)`."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*names: Any, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device`, seeded by `seed_for(*names)`."""
    return torch.Generator(device).manual_seed(seed_for(*names))
