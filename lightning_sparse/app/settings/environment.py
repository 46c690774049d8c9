"""W&B's variables of the shell, which the configuration reads where it says nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_VARIABLES = {"mode": "WANDB_MODE", "project": "WANDB_PROJECT", "entity": "WANDB_ENTITY"}


def overruled(logger: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[str]:
    """Say which of the shell's variables do not count because the configuration or the command line sets them otherwise.

    Example:
        >>> list(overruled({"kind": "wandb", "mode": "offline"}, {"WANDB_MODE": "online"}))
        ['logger.mode=offline counts, and WANDB_MODE=online of the shell does not']
    """
    for name, variable in _VARIABLES.items() if logger.get("kind") == "wandb" else ():
        of_shell = environment.get(variable)
        if of_shell and str(logger.get(name)) != of_shell:
            value = "null" if logger.get(name) is None else logger[name]
            yield f"logger.{name}={value} counts, and {variable}={of_shell} of the shell does not"
