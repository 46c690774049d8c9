"""Saliency maps, and measurements of them."""

from __future__ import annotations

from dataclasses import replace

from lightning_sparse import measure
from lightning_sparse.app.measuring.kind import Kind, Settings, at_once, in_group, merged
from lightning_sparse.app.measuring.trained import Trained, places
from lightning_sparse.errors import check_choice
from lightning_sparse.results.records import Measured


def _check(settings: Settings) -> None:
    from lightning_sparse.measure.explanations.map_numbers import MEASURES

    methods = measure.ATTRIBUTIONS
    for name, allowed in (("methods", methods), ("max_sensitivity", methods), ("measures", MEASURES)):
        for chosen in settings[name]:
            check_choice(f"saliency.{name}", chosen, allowed)


def _measure(trained: Trained, settings: Settings) -> Measured:
    data, truth = trained.test(settings), trained.data.truth("test")
    if truth is not None:
        chosen = places(trained.data, settings)
        truth = {name: masks[chosen] for name, masks in truth.items()}
    common = {"calibration": trained.other("validation"), "truth": truth, "seed": settings["seed"]}
    measures, steady = settings["measures"], settings["max_sensitivity"]
    found = []
    for methods, of_these in (
        ([method for method in settings["methods"] if method in steady], [*measures, "max_sensitivity"]),
        ([method for method in settings["methods"] if method not in steady], measures),
    ):
        if methods:
            found.append(measure.measure_saliency(trained.model, data, methods=methods, measures=of_these, **common))
    together = merged(found)
    # Some rows are about the images, not a method: both parts have them.
    return replace(together, records=list({row.chart: row for row in together.records}.values()))


SALIENCY = Kind("saliency", settings=in_group("saliency", unless="methods"), check=_check, measure=at_once(_measure))
