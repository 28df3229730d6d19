"""Command line: notebooks in order, or one stage alone.

    python -m clsp_utils run [NOTEBOOK ...] --profile P -p name=value
    accelerate launch -m clsp_utils stage pretrain --method CLSP-SimCLR --profile paper

A stage on several GPUs leaves the artifact, under the key, that the notebooks then read.
"""

import argparse
import sys
from contextlib import suppress

from clsp_utils.book import run_notebooks
from clsp_utils.config import PROFILES, ConfigError, Positive, alike, home, validate
from clsp_utils.pipeline import Profile, Stage
from clsp_utils.store import Store, StoreError

TIMEOUTS = {"smoke": 3600, "laptop": 3600}  # seconds per cell; on GPUs it may take days


def main(arguments: list[str] | None = None) -> int:
    """Does what the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m clsp_utils",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run notebooks with papermill")
    run.add_argument("notebooks", nargs="*", help="beginnings of names, such as 03; default: all")
    limit = "seconds a cell may take (an hour; gpu and paper: any)"
    run.add_argument("--timeout", type=float, help=limit)
    stage = commands.add_parser("stage", help="make one artifact, on one or several GPUs")
    stage.add_argument("name", help=", ".join(_stages()))
    stage.add_argument("--method", help="of pretrain and scores (CLSP-SimCLR)")
    stage.add_argument("--seed", type=int, default=0, help="as the notebooks' parameter (0)")
    for command in (run, stage):
        profiles = f"{', '.join(PROFILES)}; default laptop"
        command.add_argument("--profile", default="laptop", help=profiles)
        command.add_argument(
            "-p",
            dest="parameters",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="a parameter of the notebooks, or a setting of the profile such as candidates.k=4",
        )
    for stream in (sys.stdout, sys.stderr):  # a terminal may lack a sign of some name
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    options = parser.parse_args(arguments)
    try:
        return {"run": _run, "stage": _stage}[options.command](options)
    except (ConfigError, StoreError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = "what was finished is kept, and long stages go on where they were."
        print(f"\nstopped; {kept}", file=sys.stderr)
        return 130


def _stages() -> list[str]:
    """Names of the stages that a profile alone describes."""
    profile, names = Profile("smoke"), []
    for name, kind in Stage.kinds.items():
        with suppress(ConfigError):
            profile.stage(kind)
            names += [name] if kind.made else []
    return names


def _run(options: argparse.Namespace) -> int:
    notebooks = run_notebooks.find_notebooks(home("notebooks"), options.notebooks)
    parameters = run_notebooks.parse_parameters(options.parameters)
    timeout = TIMEOUTS.get(options.profile)
    if options.timeout is not None:
        timeout = validate(Positive, options.timeout, "--timeout")
    Store(home("artifacts"))
    Store(home("build"))
    failed = run_notebooks.run(notebooks, home("build"), options.profile, parameters, timeout)
    return 1 if failed else 0


def _stage(options: argparse.Namespace) -> int:
    if options.name not in _stages():
        raise ConfigError(f"stage={options.name!r}: use one of {', '.join(_stages())}.")
    parameters = run_notebooks.parse_parameters(options.parameters)
    overrides, data, others = run_notebooks.split_settings(parameters)
    for name, value in others.items():
        such = " or ".join(alike(Profile(options.profile).tree, name)) or "candidates.k"
        raise ConfigError(
            f"-p {name}={value}: a stage takes data, overrides, or a setting such as {such}."
        )
    kind, given = Stage.kinds[options.name], {}
    if options.method is not None:
        given["method"] = options.method
    Profile(options.profile, overrides, data, options.seed).stage(kind, **given)
    from clsp_utils.pipeline import Companion  # seconds of imports
    from clsp_utils.runtime import Diverged

    companion = Companion(options.profile, options.seed, overrides, data)
    try:
        artifact = companion.artifact(kind, **given)
    except Diverged as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.name}: {artifact.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
