"""Scores of single training images over the training, held against planted label noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_sparse.app.measuring.kind import Kind, Settings, in_group
from lightning_sparse.app.measuring.trained import Trained
from lightning_sparse.app.values import count
from lightning_sparse.results.jobs import Job
from lightning_sparse.results.records import Measured

if TYPE_CHECKING:
    from lightning.pytorch import Callback

    from lightning_sparse.data.fixed_splits import FixedSplits


def _callback(settings: Settings, data: FixedSplits) -> Callback:
    from lightning_sparse.callbacks.example_scores import ExampleScores

    return ExampleScores(data.split("train", settings["train_images"]))


def _measure(trained: Trained, settings: Settings, job: Job, missing: set[str]) -> Iterator[tuple[str, Measured]]:
    from lightning_sparse.callbacks.example_scores import ExampleScores

    (key,) = missing
    scores = trained.callbacks["examples"]
    assert isinstance(scores, ExampleScores)
    yield key, scores.measured(trained.data.wrong_labels(settings["train_images"]), seed=job.seed)


EXAMPLES = Kind(
    "examples",
    settings=in_group("examples", unless="train_images"),
    values={"train_images": count(0, write=2000)},
    switch="train_images",
    train_images="train_images",
    callback=_callback,
    measure=_measure,
)
