"""What a kind of measurement is: all that a job has to know of it, in one object."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning_sparse.results.jobs import Job, key_of
from lightning_sparse.results.records import Measured

if TYPE_CHECKING:
    from lightning.pytorch import Callback

    from lightning_sparse.app.measuring.trained import Trained
    from lightning_sparse.data.images import ImageData

Settings = Mapping[str, Any]
Measure = Callable[["Trained", Settings, Job, set[str]], Iterator[tuple[str, Measured]]]


@dataclass(frozen=True)
class Kind:
    """One kind of measurement. A new one is a file beside this one, its settings in ``conf/``, and a place in ``KINDS``.

    Importing such a file must cost nothing, because jobs that are done are told by their keys alone: ``measure.X`` is
    imported when it is used, and torch and all else within functions.

    Attributes:
        name: what its keys begin with, up to the last hyphen.
        settings: from a whole configuration to the settings that it asks for; None if it does not ask for this.
        measure: from a trained model, the settings, the job and the keys that are missing to each key and what was found;
            :func:`at_once` makes it of a function of the first two.
        check: refuses settings, with a SparsityError, before anything is spent on training.
        train_images: the setting that says how many training images it takes; as of ``images``, of the test, it is checked
            that they can hold every class.
        callback: of a kind that is measured during the training: what follows it. It is built of the settings and the data,
            its state comes back from the checkpoint, and ``measure`` finds it in ``Trained.callbacks``.
        keys: where it is measured in parts: from the settings to the key of each part. One key by default.
        group: its group in ``conf/``, if that has another name.
    """

    name: str
    settings: Callable[[Settings], Settings | None]
    measure: Measure
    check: Callable[[Settings], object] | None = None
    train_images: str = ""
    callback: Callable[[Settings, ImageData], Callback] | None = None
    keys: Callable[[Settings], Mapping[Any, str]] | None = None
    group: str = ""

    def keys_of(self, settings: Settings) -> list[str]:
        """The keys of all that these settings ask for."""
        return list(self.keys(settings).values()) if self.keys else [f"{self.name}-{key_of(settings)}"]


def in_group(name: str, unless: str = "images") -> Callable[[Settings], Settings | None]:
    """Ask for the settings in a group of the configuration, unless one of them is 0 or an empty list.

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
    """Keep all that a function measures under one key."""

    def measured(trained: Trained, settings: Settings, job: Job, missing: set[str]) -> Iterator[tuple[str, Measured]]:
        (key,) = missing
        yield key, measure(trained, settings)

    return measured


def merged(found: list[Measured]) -> Measured:
    """The rows and arrays of several measurements as one."""
    arrays = {name: array for measured in found for name, array in measured.arrays.items()}
    return Measured([record for measured in found for record in measured.records], arrays)
