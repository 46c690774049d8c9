"""What a network costs: bits of its description, bytes on disk, parameters, FLOPs, peak memory."""

from __future__ import annotations

from lightning_sparse import measure
from lightning_sparse.app.measuring.kind import LANGUAGE, Kind, Settings, at_once, in_group, merged
from lightning_sparse.app.measuring.trained import Trained
from lightning_sparse.app.values import count, or_null
from lightning_sparse.results.records import Measured


def _measure(trained: Trained, settings: Settings) -> Measured:
    size = len(trained.data.sample("train"))
    sample = trained.other("train", settings["images"])
    if trained.task == LANGUAGE:  # a pass is the same whichever place is looked at; there are no labels to be described
        last = measure.as_classifier(trained.model, forward=lambda model, texts: model(texts)[:, -1])
        return measure.measure_cost(last, sample, masks=trained.masks)
    bits = measure.measure_description_length(trained.model, sample, masks=trained.masks, train_size=size)
    return merged([measure.measure_cost(trained.model, sample, masks=trained.masks), bits])


COST = Kind(
    "cost",
    settings=in_group("cost"),
    values={"images": or_null(count(0, write=1000))},
    train_images="images",
    measure=at_once(_measure),
    of_language=True,
)
