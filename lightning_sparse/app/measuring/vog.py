"""The variance of gradients over the training, measured by a callback."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lightning_sparse.app.measuring.kind import Kind, Settings, at_once, in_group
from lightning_sparse.app.measuring.trained import Trained, places
from lightning_sparse.app.values import count, or_null
from lightning_sparse.results.records import Measured

if TYPE_CHECKING:
    from lightning.pytorch import Callback

    from lightning_sparse.data.fixed_splits import FixedSplits


def _callback(settings: Settings, data: FixedSplits) -> Callback:
    from lightning_sparse.callbacks.variance_of_gradients import VarianceOfGradients

    # Test images, because forgetting is measured on them; the training does not use the result.
    return VarianceOfGradients(data.split("test", settings["images"]))


def _measure(trained: Trained, settings: Settings) -> Measured:
    import numpy as np

    from lightning_sparse.callbacks.variance_of_gradients import VarianceOfGradients

    vog = trained.callbacks["vog"]
    assert isinstance(vog, VarianceOfGradients)
    found = vog.measured()
    return replace(found, arrays=found.arrays | {"places": np.array(places(trained.data, settings))})


VOG = Kind(
    "vog",
    settings=in_group("vog"),
    values={"images": or_null(count(0, write=512))},
    callback=_callback,
    measure=at_once(_measure),
)
