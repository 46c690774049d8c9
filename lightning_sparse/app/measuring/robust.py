"""Robust accuracy, with a key for each eps, so that a launch that asks for one more eps attacks only there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_sparse import measure
from lightning_sparse.app.measuring.kind import Kind, Settings
from lightning_sparse.app.measuring.trained import Trained
from lightning_sparse.app.values import anything, choice, count, names, or_null, seed
from lightning_sparse.errors import check_choices, check_flag
from lightning_sparse.measure.robustness.tiers import TIERS
from lightning_sparse.results import records
from lightning_sparse.results.jobs import Job, key_of
from lightning_sparse.results.norms import OF_IMAGES, OF_TEXTS
from lightning_sparse.results.records import Measured

if TYPE_CHECKING:
    from torch import Tensor, nn


_VALUES = {
    "eps": anything,  # depends on the norm
    "transfer_eps": anything,
    "norm": choice(*OF_IMAGES, *OF_TEXTS),
    "tier": choice(*TIERS),
    "attacks": or_null(
        names(
            {"pwws", "greedy-margin"}.union(*(tier.attacks for tier in TIERS.values())),
            "lightning_sparse.measure.ATTACKS",
        )
    ),
    "steps": or_null(count(write=20)),
    "restarts": or_null(count()),
    "batch_size": count(write=256),
    "first": check_flag,
    "images": or_null(count(write=512)),
    "seed": seed,
}


def robust_keys(settings: Settings) -> dict[str | float, str]:
    """Give the keys of the parts of a robust accuracy. Those whose settings differ only in ``eps`` begin alike.

    Returns:
        ``"model"``: of the checks of the model, which are at no eps; each eps, ascending; ``"curve"``: of the numbers about
        the whole curve.

    Example:
        >>> few, more = robust_keys({"eps": [0.2, 0.05], "steps": 20}), robust_keys({"eps": [0.05, 0.1], "steps": 20})
        >>> few["model"] == more["model"], few[0.05] == more[0.05], few["curve"] == more["curve"]
        (True, True, False)
        >>> few[0.05].endswith("-0.05"), list(more)
        (True, ['model', 0.05, 0.1, 'curve'])
    """
    family = f"robust-{key_of({name: value for name, value in settings.items() if name != 'eps'})}"
    try:
        radii = sorted({float(eps) for eps in settings["eps"]})
    except (TypeError, ValueError):
        radii = []  # not a list of numbers: the check refuses it
    of_eps: dict[str | float, str] = {eps: f"{family}-{eps!r}" for eps in radii}
    return {"model": f"{family}-model", **of_eps, "curve": f"{family}-curve-{key_of(radii)}"}


def _settings(config: Settings) -> Settings | None:
    attack = config["attack"]
    return {name: value for name, value in attack.items() if name != "transfer_eps"} if attack["eps"] else None


def _try(model: nn.Module, few: tuple[Tensor, Tensor], settings: Settings) -> None:
    from lightning_sparse.measure.robustness.robust_accuracy import THREATS, try_attack

    if settings["attacks"]:
        check_choices("attack.attacks", settings["attacks"], THREATS[settings["norm"]].attacks)
    own = {name: settings[name] for name in ("norm", "tier", "attacks")}
    try_attack(model, *few, eps=max(settings["eps"]), **own)


def known(job: Job, settings: Settings) -> Measured:
    """Read what is on disk of a job's robust accuracy with these settings, at every eps so far.

    Returns:
        As :func:`~lightning_sparse.measure.measure_robustness` returns it; no array if no eps was measured.
    """
    import numpy as np

    from lightning_sparse.results.arrays import read

    family = robust_keys(settings)["model"].removesuffix("model")
    closed = {key for key in job.measured() if key.startswith(family)}
    found = []
    for path in job.folder.glob(f"{family}*.npz"):
        if path.stem in closed and (arrays := read(path, "robust")) and {"labels", "correct"} <= arrays.keys():
            found.append(arrays)
    # After a kill, rows may have been measured twice: the later ones count.
    newest = {(row.metric, row.attack, row.eps): row for row in records.read(job.rows, job.run) if row.key in closed}
    rows = list(newest.values())
    if not found:
        return Measured(rows)
    found.sort(key=lambda arrays: float(arrays["eps"][0]))
    columns = {name: np.concatenate([arrays[name] for arrays in found], axis=-1) for name in ("survives", "eps")}
    return Measured(rows, {name: found[0][name] for name in ("labels", "correct")} | columns)


def _measure(trained: Trained, settings: Settings, job: Job, missing: set[str]) -> Iterator[tuple[str, Measured]]:
    """Attack at each missing eps, in ascending order; the model's checks are yielded first: no eps counts without them."""
    from lightning_sparse.measure.robustness.trust import OF_THE_MODEL

    before, ((_, of_model), *of_eps, (_, of_curve)) = known(job, settings), robust_keys(settings).items()
    own = {name: value for name, value in settings.items() if name not in ("images", "first", "batchnorm")}
    if own["norm"] == "synonyms":
        own["synonyms"] = trained.data.synonyms()  # type: ignore[attr-defined]  # texts have them
    found = measure.measure_robustness(trained.model, trained.test(settings), known=before, **own)
    checks = [row for row in found.records if row.metric in OF_THE_MODEL]
    had = {(row.metric, row.eps) for row in before.records}
    new = [row for row in checks if (row.metric, row.eps) not in had]
    if new or of_model in missing:
        yield of_model, Measured(new)
    for column, (eps, key) in enumerate(of_eps):
        if key in missing:
            rows = [row for row in found.records if row.eps == eps and row not in checks]
            one = {"survives": found.arrays["survives"][:, [column]], "eps": found.arrays["eps"][[column]]}
            yield key, Measured(rows, found.arrays | one)
    if of_curve in missing:
        yield of_curve, Measured([row for row in found.records if row.eps is None and row not in checks])


ROBUST = Kind(
    "robust",
    settings=_settings,
    values=_VALUES,
    switch="eps",
    optional=("transfer_eps", "batch_size", "seed"),
    try_on=_try,
    measure=_measure,
    keys=robust_keys,
    group="attack",
)
