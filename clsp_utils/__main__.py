"""Command line: notebooks in order, one stage alone, or copies of the notebooks.

    python -m clsp_utils lab
    python -m clsp_utils run [NOTEBOOK ...] --profile P -p name=value
    python -m clsp_utils regenerate FIGURE -p name=value
    accelerate launch -m clsp_utils stage pretrain --method CLSP-SimCLR --profile paper

A stage on several GPUs leaves the artifact, under the key, that the notebooks then read.
"""

import argparse
import os
import sys
from contextlib import suppress

from clsp_utils.book import copies, lab, run_notebooks
from clsp_utils.config import PROFILES, PROJECT, ConfigError, Positive, alike, home, validate
from clsp_utils.pipeline import Profile, Stage
from clsp_utils.store import Store, StoreError, replace_file

TIMEOUTS = {"smoke": 3600, "laptop": 3600}  # seconds per cell; on GPUs it may take days


def main(arguments: list[str] | None = None) -> int:
    """Does what the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m clsp_utils",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("lab", help="JupyterLab on copies of the notebooks, in lab/")
    run = commands.add_parser("run", help="run notebooks with papermill")
    run.add_argument("notebooks", nargs="*", help="beginnings of names, such as 03; default: all")
    limit = "seconds a cell may take (an hour; gpu and paper: any)"
    run.add_argument("--timeout", type=float, help=limit)
    run.add_argument("--list", action="store_true", help="only tell what there is to run")
    run.add_argument("--redraw", action="store_true", help="draw into figures/, as committed")
    one = commands.add_parser("regenerate", help="run what one figure or table needs")
    one.add_argument("figure", help="such as 04_candidates; run --list names them all")
    one.add_argument("--timeout", type=float, help=limit)
    commands.add_parser("student", help="copies for a class, without and with solutions")
    stage = commands.add_parser("stage", help="make one artifact, on one or several GPUs")
    stage.add_argument("name", help=", ".join(_stages()))
    stage.add_argument("--method", help="of pretrain and scores (CLSP-SimCLR)")
    stage.add_argument("--seed", type=int, default=0, help="as the notebooks' parameter (0)")
    play = commands.add_parser("play", help="the page on which a browser samples (see make play)")
    for command in (run, one, stage, play):
        profiles = f"{', '.join(PROFILES)}; default laptop"
        command.add_argument("--profile", default="laptop", help=profiles)
    for command in (run, one, stage):
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
        does = {
            "lab": _lab, "play": _play, "run": _run, "regenerate": _run, "stage": _stage,
            "student": _student,
        }  # fmt: skip
        return does[options.command](options)
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


def _lab(options: argparse.Namespace) -> int:
    folder, notebooks = home("lab"), run_notebooks.find_notebooks(home("notebooks"))
    # Whoever comes back finds open what was.
    shown = folder.name if folder.exists() else f"{folder.name}/{notebooks[0].name}"
    lab.refresh_copies(notebooks, folder)
    # From the folder above, so that the notebooks' links to docs/ lead there.
    where = [
        f"--ServerApp.root_dir={folder.parent}",
        f"--LabApp.default_url=/lab/tree/{shown}",
        f"--LabApp.app_settings_dir={lab.SETTINGS}",
    ]
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", "--ip=127.0.0.1", *where])


def _run(options: argparse.Namespace) -> int:
    n_cells = None
    if options.command == "regenerate":
        path, n_cells = run_notebooks.find_figure(home("notebooks"), options.figure)
        notebooks = [path]
    else:
        notebooks = run_notebooks.find_notebooks(home("notebooks"), options.notebooks)
        if options.list:
            drawn = home("build", options.profile, "figures")
            folders = [home("figures"), drawn] if options.profile == "laptop" else [drawn]
            print(run_notebooks.listed(notebooks, folders))
            return 0
    parameters = run_notebooks.parse_parameters(options.parameters)
    if options.command == "run" and options.redraw:
        if parameters or options.profile != "laptop":
            raise ConfigError("--redraw: figures/ is drawn by the plain profile laptop, no other.")
        os.environ["CLSP_REDRAW"] = "1"  # for the kernels
    timeout = TIMEOUTS.get(options.profile)
    if options.timeout is not None:
        timeout = validate(Positive, options.timeout, "--timeout")
    Store(home("artifacts"))
    Store(home("build"))
    failed = run_notebooks.run(
        notebooks, home("build"), options.profile, parameters, timeout, n_cells
    )
    return 1 if failed else 0


def _student(options: argparse.Namespace) -> int:
    notebooks, folder = run_notebooks.find_notebooks(home("notebooks")), home("build", "course")
    copies.write_copies(notebooks, folder)
    (folder / "docs").mkdir(exist_ok=True)
    for name in ("glossary.md", "symbols.md"):  # where the notebooks' links lead
        replace_file(folder / "docs" / name, (PROJECT / "docs" / name).read_bytes())
    print(f"{len(notebooks)} notebooks for students and for those who teach: {folder}")
    return 0


def _play(options: argparse.Namespace) -> int:
    from clsp_utils.book.play import write_page  # seconds of imports
    from clsp_utils.pipeline import Companion

    folder = home("build", "play")
    n_bytes = write_page(Companion(options.profile), folder)
    print(f"{folder}: {n_bytes / 1e6:.1f} MB; look at it with: python -m http.server -d {folder}")
    return 0


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
