"""The whole companion from an empty store, and again.

CLSP_HOME=<empty folder> python benchmarks/laptop.py
"""

import json
import subprocess
import sys

import report

from clsp_utils.config import home


def measure(quick: bool) -> dict:
    store = home("artifacts")
    if any(store.glob("*/*")):
        sys.exit(f"{store} holds results already: let CLSP_HOME name an empty folder.")
    profile, notebooks = ("smoke", ["01"]) if quick else ("laptop", [])
    first, again = (run(profile, notebooks) for _ in range(2))
    return {
        "what": f"all notebooks at the profile {profile}: from an empty store, and again from the "
        "full one",
        "seconds": total(first),
        "seconds_again": total(again),
        "notebooks": [
            {name: one[name] for name in ("name", "seconds", "peak_mb")}
            | {"seconds_again": other["seconds"]}
            for one, other in zip(first, again, strict=True)
        ],
    }


def run(profile: str, notebooks: list[str]) -> list[dict]:
    command = [sys.executable, "-m", "clsp_utils", "run", *notebooks, "--profile", profile]
    subprocess.run(command, check=True)
    return json.loads(home("build", profile, "report.json").read_text())


def total(notebooks: list[dict]) -> float:
    return round(sum(notebook["seconds"] for notebook in notebooks), 1)


if __name__ == "__main__":
    report.main(measure)
