"""A kind of measurement: everything that a job has to know about it, in one object."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lightning_sparse.app.values import Check
from lightning_sparse.results.jobs import Job, key_of
from lightning_sparse.results.records import Measured

if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from torch import Tensor, nn

    from lightning_sparse.app.measuring.trained import Trained
    from lightning_sparse.data.fixed_splits import FixedSplits

CLASSES, LANGUAGE = "classification", "lm"
"""What a network is trained to do: tell classes, or foretell the next token."""

Settings = Mapping[str, Any]
Measure = Callable[["Trained", Settings, Job, set[str]], Iterator[tuple[str, Measured]]]


@dataclass(frozen=True, eq=False)
class Kind:
    """One kind of measurement. To add one, write a file beside this one, its settings in ``conf/``, and list it in ``KINDS``.

    Importing the file must be cheap, because a job that is done is recognised by its keys alone: ``measure.X`` is imported
    when it is used; import torch and everything else within functions.

    Attributes:
        name: what its keys begin with, up to the last hyphen.
        settings: takes a whole configuration, and returns the settings that it asks for, or None if it asks for none.
        measure: takes a trained model, the settings, the job and the missing keys, and yields each key with what was
            measured; :func:`at_once` makes it from a function of the first two.
        values: what each setting of its group in ``conf/`` may be; no other key is one of them.
        switch: the setting that turns it on, unless it is 0 or empty; then all the others have to be there,
        optional: but for these.
        check: refuses settings that do not go together, with a SparsityError, before the training.
        try_on: takes the untrained model, a few images and labels and the settings, and measures as little as shows whether
            the model can be measured; it raises a SparsityError before the training if not.
        train_images: the setting with the number of training images. Like ``images``, the number of test images, it is
            checked to be enough for every class.
        callback: of a kind that is measured during the training: builds, from the settings and the data, the callback that
            measures it. Its state is restored from the checkpoint, and ``measure`` finds it in ``Trained.callbacks``.
        keys: of a kind that is measured in parts: takes the settings, and returns the key of each part. One key by default.
        group: its group in ``conf/``, if that has another name.
        of_language: whether a language model (``task=lm``) can be measured so; the others need logits of classes.
        of_texts: whether texts can be measured so; the others need pixels.
    """

    name: str
    settings: Callable[[Settings], Settings | None]
    measure: Measure
    values: Mapping[str, Check] = field(default_factory=dict)
    switch: str = "images"
    optional: tuple[str, ...] = ()
    check: Callable[[Settings], object] | None = None
    try_on: Callable[[nn.Module, tuple[Tensor, Tensor], Settings], object] | None = None
    train_images: str = ""
    callback: Callable[[Settings, FixedSplits], Callback] | None = None
    keys: Callable[[Settings], Mapping[Any, str]] | None = None
    group: str = ""
    of_language: bool = False
    of_texts: bool = True

    def keys_of(self, settings: Settings) -> list[str]:
        """The keys of everything that these settings ask for."""
        return list(self.keys(settings).values()) if self.keys else [f"{self.name}-{key_of(settings)}"]


def in_group(name: str, unless: str = "images") -> Callable[[Settings], Settings | None]:
    """Return a function that gives a group of the configuration, or None if its setting ``unless`` is 0 or empty.

    Example:
        >>> of_cost = in_group("cost")
        >>> of_cost({"cost": {"images": 10}}), of_cost({"cost": {"images": 0}}), of_cost({})
        ({'images': 10}, None, None)
    """

    def settings(config: Settings) -> Settings | None:
        group: Settings = config.get(name, {})
        return group if group.get(unless) else None

    return settings


def at_once(measure: Callable[[Trained, Settings], Measured]) -> Measure:
    """Make the ``measure`` of a kind that has a single key from a function."""

    def measured(trained: Trained, settings: Settings, job: Job, missing: set[str]) -> Iterator[tuple[str, Measured]]:
        (key,) = missing
        yield key, measure(trained, settings)

    return measured


def merged(found: list[Measured]) -> Measured:
    """The rows and arrays of several measurements as one."""
    arrays = {name: array for measured in found for name, array in measured.arrays.items()}
    return Measured([record for measured in found for record in measured.records], arrays)
