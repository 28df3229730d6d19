"""Command line: notebooks in order, or one long stage alone.

    python -m clsp_utils run [NOTEBOOK ...] --profile P -p name=value
    accelerate launch -m clsp_utils stage pretrain --method CLSP-SimCLR --profile paper

A stage on several GPUs leaves the artifact, under the key, that the notebooks then read.
"""

import argparse
import sys

from clsp_utils import config, runner
from clsp_utils.artifacts import Store, StoreError
from clsp_utils.config import ConfigError, home

TIMEOUTS = {"smoke": 3600, "laptop": 3600}  # seconds a cell; on GPUs it may take days
STAGES = ("diffusion", "class-diffusion", "candidates", "class-candidates", "pretrain")


def main(arguments: list[str] | None = None) -> int:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m clsp_utils", description=__doc__, formatter_class=shape)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run notebooks with papermill")
    run.add_argument("notebooks", nargs="*", help="beginnings of names, such as 03; default: all")
    run.add_argument("--timeout", type=float, help="seconds a cell may take (an hour; gpu and paper: any)")
    stage = commands.add_parser("stage", help="make one artifact, on one or several GPUs")
    stage.add_argument("name", help=", ".join(STAGES))
    stage.add_argument("--method", default="CLSP-SimCLR", help="of pretrain (CLSP-SimCLR)")
    stage.add_argument("--seed", type=int, default=0, help="as the notebooks' parameter (0)")
    for command in (run, stage):
        command.add_argument("--profile", default="laptop", help=f"{', '.join(config.PROFILES)}; default laptop")
        command.add_argument(
            "-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE",
            help="a parameter of the notebooks, or a setting of the profile such as candidates.k=4",
        )
    options = parser.parse_args(arguments)
    try:
        return {"run": _run, "stage": _stage}[options.command](options)
    except (ConfigError, StoreError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; what was finished is kept, and long stages go on where they were.", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    notebooks = runner.find_notebooks(home() / "notebooks", options.notebooks)
    parameters = runner.parse_parameters(options.parameters)
    timeout = TIMEOUTS.get(options.profile)
    if options.timeout is not None:
        timeout = config.validate(config.Positive, options.timeout, "--timeout")
    Store(home("artifacts"))
    Store(home("build"))
    failed = runner.run(notebooks, home("build"), options.profile, parameters, timeout)
    return 1 if failed else 0


def _stage(options: argparse.Namespace) -> int:
    if options.name not in STAGES:
        raise ConfigError(f"stage={options.name!r}: use one of {', '.join(STAGES)}.")
    config.validate(config.Method, options.method, "method")
    overrides, data, others = runner.split_settings(runner.parse_parameters(options.parameters))
    for name, value in others.items():
        raise ConfigError(f"-p {name}={value}: a stage takes data, overrides, or a setting such as candidates.k=4.")
    from clsp_utils.companion import Companion  # seconds of imports, which `run` leaves to its kernels
    from clsp_utils.training import Diverged

    companion = Companion(options.profile, options.seed, overrides, data)
    conditional = options.name.startswith("class-")
    make = {
        "diffusion": lambda: companion.diffusion(conditional),
        "candidates": lambda: companion.bank(conditional=conditional),
        "pretrain": lambda: companion.encoder(options.method, options.seed),
    }[options.name.removeprefix("class-")]
    try:
        artifact = make()
    except Diverged as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.name}: {artifact.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
