"""The command ``lightning-sparse``, also ``python -m lightning_sparse``."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from importlib.resources import files


def main() -> None:
    """Run one job, or with ``-cn NAME`` a named sweep."""
    problem = _unknown_config(sys.argv[1:])
    if problem:
        print(f"lightning-sparse: {problem}", file=sys.stderr)
        sys.exit(2)
    from lightning_sparse.app import run

    run()


def named_sweeps() -> list[str]:
    """Names of the sweeps that ship: the files of ``sweeps/``."""
    shipped = files("lightning_sparse.sweeps").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in shipped if file.name.endswith(".yaml"))


def _unknown_config(arguments: list[str]) -> str | None:
    """Say what is wrong with ``-cn NAME``, better than a traceback from deep inside could."""
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


if __name__ == "__main__":
    main()
