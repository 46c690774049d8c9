"""The command ``lightning-sparse``, also ``python -m lightning_sparse``."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import pairwise
from re import fullmatch
from textwrap import fill


def main() -> None:
    """Run one job, or with ``-cn NAME`` a named sweep."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(_help())  # Hydra's own takes longer than all imports, and ends in a page of YAML
        return
    problem = _unknown_config(sys.argv[1:]) or _no_choice(sys.argv[1:])
    if problem:
        print(f"lightning-sparse: {problem}", file=sys.stderr)
        sys.exit(2)
    if _is_sweep(sys.argv[1:]):
        # Their files say so too, but Hydra reads that only if every override fits, and else calls the commas ambiguous.
        sys.argv.append("--multirun")
    from lightning_sparse.app.task import run

    run()


HELP = """\
lightning-sparse                                       one run: train a sparse network, then measure it
lightning-sparse sparsity=brain_development seed=1     any group or value can be replaced
lightning-sparse -cn NAME                              a named sweep: {sweeps}
lightning-sparse --multirun 'seed=range(5)' ...        a sweep of your own
lightning-sparse-report FOLDER ...                     the report again, at any time, or of several sweeps together
lightning-sparse-export FOLDER                         the trained network of a job as few bytes

Groups, and what can be chosen in them:
{groups}

--cfg job             show the whole configuration, every value of which can be overridden
-m, --multirun        all combinations of values separated by commas
hydra/launcher=...    joblib: many cores; submitit_slurm: a cluster
--hydra-help          what Hydra itself can do"""


def _help() -> str:
    conf = files("lightning_sparse.conf")
    groups = [folder for folder in conf.iterdir() if folder.is_dir() and not folder.name.startswith("_")]
    lines = []
    for group in sorted(groups, key=lambda folder: folder.name):
        choices = ", ".join(_names_in(group))
        lines.append(fill(choices, 100, initial_indent=f"  {group.name:<12}", subsequent_indent=" " * 14))
    return HELP.format(sweeps=", ".join(named_sweeps()), groups="\n".join(lines))


def named_sweeps() -> list[str]:
    """The sweeps that ship: the files of ``sweeps/``."""
    return _names_in(files("lightning_sparse.sweeps"))


def _names_in(folder: Traversable) -> list[str]:
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def _unknown_config(arguments: list[str]) -> str | None:
    """Say what is wrong with ``-cn NAME``, or None if it names a sweep or is left out."""
    if any(argument.startswith(("--config-dir", "-cd", "--config-path", "-cp")) for argument in arguments):
        return None  # the user's own folder may hold anything
    name = None
    for position, argument in enumerate(arguments):
        if argument in ("-cn", "--config-name"):
            name = arguments[position + 1] if position + 1 < len(arguments) else ""
        elif argument.startswith("--config-name="):
            name = argument.partition("=")[2]
    sweeps = named_sweeps()
    if name is None or name.removesuffix(".yaml") in [*sweeps, "config"]:
        return None
    close = get_close_matches(name, sweeps, n=1)
    guess = f": did you mean {close[0]!r}?" if close else ""
    return f"there is no sweep named {name!r}{guess} (sweeps: {', '.join(sweeps)})"


def _is_sweep(arguments: list[str]) -> bool:
    """Whether arguments run a sweep that ships, and do not only show it."""
    others = (
        "-m",
        "--multirun",
        "--run",
        "-r",
        "--cfg",
        "-c",
        "--info",
        "-i",
        "--shell-completion",
        "-sc",
        "--hydra-help",
    )
    asked = {argument.partition("=")[0] for argument in arguments}
    names = {argument.partition("=")[2] for argument in arguments if argument.startswith("--config-name=")}
    names |= {after for before, after in pairwise(arguments) if before in ("-cn", "--config-name")}
    own_folder = {"--config-dir", "-cd", "--config-path", "-cp"}
    shipped = {name.removesuffix(".yaml") for name in names} <= set(named_sweeps())
    return bool(names) and shipped and not asked & {*others, *own_folder, "hydra.mode"}


def _no_choice(arguments: list[str]) -> str | None:
    """Say what is wrong with ``trainer=null``, which Hydra answers with a traceback, or None if every group has a choice."""
    groups = {folder.name: folder for folder in files("lightning_sparse.conf").iterdir() if folder.is_dir()}
    for before, argument in pairwise(["", *arguments]):
        name, _, value = argument.partition("=")
        if before in ("-cn", "--config-name"):  # a sweep may have the name of a group
            continue
        if name in groups and fullmatch(r"|null|true|false|-?[0-9.]+|\{.*", value):
            choices = _names_in(groups[name])
            some = choices[0] if len(choices) == 1 else f"NAME, with one of {', '.join(choices)}"
            return f"{argument} is no choice of {name}: write {name}={some}"
    return None


if __name__ == "__main__":
    main()
