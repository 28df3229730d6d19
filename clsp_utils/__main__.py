"""Command line: `python -m clsp_utils run [NOTEBOOK ...] --profile P -p name=value`."""

import argparse
import sys

from clsp_utils import config, runner
from clsp_utils.artifacts import Store, StoreError
from clsp_utils.config import ConfigError, home


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m clsp_utils", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run notebooks with papermill")
    run.add_argument("notebooks", nargs="*", help="beginnings of names, such as 03; default: all")
    run.add_argument("--profile", default="laptop", help="smoke or laptop (default)")
    run.add_argument(
        "-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE",
        help="a parameter of the notebooks, or a setting of the profile such as candidates.k=4",
    )
    run.add_argument("--timeout", type=float, default=3600, help="seconds a cell may take (3600)")
    options = parser.parse_args(arguments)
    try:
        notebooks = runner.find_notebooks(home() / "notebooks", options.notebooks)
        parameters = runner.parse_parameters(options.parameters)
        config.validate(config.Positive, options.timeout, "--timeout")
        Store(home("artifacts"))
        Store(home("build"))
        failed = runner.run(notebooks, home("build"), options.profile, parameters, options.timeout)
    except (ConfigError, StoreError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; what was finished is kept, and long stages go on where they were.", file=sys.stderr)
        return 130
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
