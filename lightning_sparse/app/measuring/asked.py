"""What a configuration asks to be measured, and the keys under which that is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from lightning_sparse.results.jobs import key_of


@dataclass(frozen=True)
class Measurement:
    """One measurement that a configuration asks for.

    Attributes:
        kind: what is measured, as ``MEASUREMENTS`` in ``kinds.py`` lists it, ``"robust"`` or ``"vog"``.
        settings: with which settings; the measurements that a robust accuracy consists of share theirs.
        key: under which its rows lie; rows under this key are not measured again.
    """

    kind: str
    settings: Mapping[str, Any]
    key: str


class RobustKeys(NamedTuple):
    """Keys of all that a robust accuracy consists of, so that one more eps measures that eps.

    Attributes:
        model: of the checks that are of the model and not of an eps.
        eps: of each eps, ascending.
        curve: of the numbers about the whole curve.
    """

    model: str
    eps: dict[float, str]
    curve: str


def robust_keys(settings: Mapping[str, Any]) -> RobustKeys:
    """Give the keys of a robust accuracy; those with equal settings but for ``eps`` begin alike.

    Example:
        >>> few, more = robust_keys({"eps": [0.2, 0.05], "steps": 20}), robust_keys({"eps": [0.05, 0.1], "steps": 20})
        >>> few.model == more.model, few.eps[0.05] == more.eps[0.05], few.curve == more.curve
        (True, True, False)
        >>> few.eps[0.05].endswith("-0.05"), list(more.eps)
        (True, [0.05, 0.1])
    """
    family = f"robust-{key_of({name: value for name, value in settings.items() if name != 'eps'})}"
    try:
        radii = sorted({float(eps) for eps in settings["eps"]})
    except (TypeError, ValueError):
        radii = []  # no list of numbers, which the check refuses
    return RobustKeys(f"{family}-model", {eps: f"{family}-{eps!r}" for eps in radii}, f"{family}-curve-{key_of(radii)}")


def measurements(config: Mapping[str, Any]) -> list[Measurement]:
    """List what is to be measured: accuracy always, the rest unless it is set to nothing.

    Args:
        config: as for :func:`~lightning_sparse.results.jobs.job_of`, with the groups ``attack``, ``saliency``, ``stability``,
            ``transfer``, ``cost`` and ``vog``, and perhaps ``batchnorm``.
    """
    batchnorm = {} if config.get("batchnorm", "trained") == "trained" else {"batchnorm": config["batchnorm"]}
    found = []
    for kind, chosen in _asked(config):
        settings = chosen if kind == "vog" else dict(chosen) | batchnorm
        keys = [f"{kind}-{key_of(settings)}"]
        if kind == "robust":
            parts = robust_keys(settings)
            keys = [parts.model, *parts.eps.values(), parts.curve]
        found += [Measurement(kind, settings, key) for key in keys]
    return found


def _asked(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    attack, transfer = config["attack"], dict(config["transfer"])
    yield "clean", {}
    if attack["eps"]:
        yield "robust", {name: value for name, value in attack.items() if name != "transfer_eps"}
    if config["saliency"]["methods"]:
        yield "saliency", config["saliency"]
    if config["data"].get("name") == "planted":
        yield "shortcut", {}
    if config["stability"]["images"]:
        yield "stability", config["stability"]
    if transfer["images"] and attack["eps"]:
        if transfer["eps"] is None:
            sizes, fixed = sorted(attack["eps"]), attack.get("transfer_eps")
            transfer["eps"] = fixed if fixed in sizes else sizes[(len(sizes) - 1) // 2]
        # The first of the images attacked, so that what stood there can be compared.
        yield "transfer", transfer | {name: attack[name] for name in ("norm", "first")} | {"of": attack["images"]}
    if config["cost"]["images"]:
        yield "cost", config["cost"]
    if config["vog"]["images"]:
        yield "vog", config["vog"]
