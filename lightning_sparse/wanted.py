"""What a configuration asks to be measured, and the keys under which that is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_sparse.jobs import key_of


@dataclass(frozen=True)
class Measurement:
    """One measurement that a configuration asks for: its kind, its settings, and the key that names both."""

    kind: str
    settings: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Rows under this key are not measured again."""
        return f"{self.kind}-{key_of(self.settings)}"


def measurements(config: Mapping[str, Any]) -> list[Measurement]:
    """List what is to be measured: accuracy always, the rest unless it is set to nothing.

    Args:
        config: as for :func:`~lightning_sparse.jobs.job_of`, with the groups ``attack``, ``saliency``, ``stability``,
            ``transfer``, ``cost`` and ``vog``, and perhaps ``batchnorm``.
    """
    attack, transfer = config["attack"], dict(config["transfer"])
    wanted: list[tuple[str, Mapping[str, Any]]] = [("clean", {})]
    if attack["eps"]:
        wanted.append(("robust", attack))
    if config["saliency"]["methods"]:
        wanted.append(("saliency", config["saliency"]))
    if config["data"].get("name") == "planted":
        wanted.append(("shortcut", {}))
    if config["stability"]["images"]:
        wanted.append(("stability", config["stability"]))
    if transfer["images"] and attack["eps"]:
        if transfer["eps"] is None:
            sizes = sorted(attack["eps"])
            transfer["eps"] = sizes[(len(sizes) - 1) // 2]
        # The first of the images attacked, so that what stood there can be compared.
        wanted.append(
            ("transfer", transfer | {name: attack[name] for name in ("norm", "first")} | {"of": attack["images"]})
        )
    if config["cost"]["images"]:
        wanted.append(("cost", config["cost"]))
    batchnorm = {} if config.get("batchnorm", "trained") == "trained" else {"batchnorm": config["batchnorm"]}
    found = [Measurement(kind, dict(settings) | batchnorm) for kind, settings in wanted]
    if config["vog"]["images"]:
        found.append(Measurement("vog", config["vog"]))
    return found
