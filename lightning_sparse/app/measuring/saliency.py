"""Saliency maps, and measurements of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lightning_sparse import measure
from lightning_sparse.app.measuring.kind import Kind, Settings, at_once, in_group, merged
from lightning_sparse.app.measuring.trained import Trained, places
from lightning_sparse.app.values import count, names, or_null, seed, text
from lightning_sparse.errors import SparsityError
from lightning_sparse.results.records import Measured

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lightning_sparse.data.fixed_splits import FixedSplits
    from lightning_sparse.results.arrays import Arrays

_MAPS = names(
    ("gradient", "integrated_gradients", "smoothgrad", "grad_cam"), "lightning_sparse.measure.ATTRIBUTIONS", empty=True
)
_NUMBERS = names(
    ("gini", "insertion_deletion_gap", "convergence_delta", "localisation", "randomisation", "max_sensitivity"),
    "lightning_sparse.measure.explanations.map_numbers.MEASURES",
    empty=True,
)
_VALUES = {
    "methods": _MAPS,
    "measures": _NUMBERS,
    "max_sensitivity": _MAPS,
    "layer": or_null(text("net.0")),
    "images": or_null(count(write=128)),
    "seed": seed,
}


def _check(settings: Settings) -> None:
    layer = settings.get("layer")
    if layer is not None and "grad_cam" not in settings["methods"]:
        raise SparsityError(f"saliency.layer={layer} is for grad_cam: write saliency.methods=[grad_cam] too")


def _settings(config: Settings) -> Settings | None:
    """Without a layer where none is chosen: keys of measurements on disk are made from what is set."""
    settings = in_group("saliency", unless="methods")(config)
    return settings and {name: value for name, value in settings.items() if name != "layer" or value is not None}


def _try(model: nn.Module, few: tuple[Tensor, Tensor], settings: Settings) -> None:
    methods, layer = settings["methods"], settings.get("layer")
    measure.measure_saliency(model, few, methods=methods, measures=["gini"], layer=layer)


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
            layer = settings.get("layer") if "grad_cam" in methods else None
            found.append(
                measure.measure_saliency(trained.model, data, methods=methods, measures=of_these, layer=layer, **common)
            )
    together = merged(found)
    # Some rows are about the images, not a method: both parts have them.
    records = list({row.chart: row for row in together.records}.values())
    return replace(together, records=records, arrays={**together.arrays, **_as_read(trained.data, settings, data[0])})


def _as_read(data: FixedSplits, settings: Settings, tokens: Tensor) -> Arrays:
    """The words of the texts measured, which of them are unknown, and the names of the classes; nothing of images."""
    import numpy as np

    from lightning_sparse.anatomy.tokens import UNKNOWN
    from lightning_sparse.data import TextData

    if not isinstance(data, TextData):
        return {}
    texts = data.word_lists("test", settings.get("images"))
    rows = [[*words, *[""] * (data.length - len(words))] for words in texts]
    unknown = (tokens == UNKNOWN).cpu().numpy()
    return {"words": np.array(rows), "unknown": unknown, "class_names": np.array(data.class_names)}


SALIENCY = Kind(
    "saliency",
    settings=_settings,
    values=_VALUES,
    switch="methods",
    optional=("images", "layer"),
    check=_check,
    try_on=_try,
    measure=at_once(_measure),
)
