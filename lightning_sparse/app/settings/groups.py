"""The settings of each group in ``conf/`` that has no ``_target_``, and of ours that have one, each with its check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from lightning_sparse.app.measuring.export_forms import FORMS
from lightning_sparse.app.measuring.kind import CLASSES, LANGUAGE
from lightning_sparse.app.measuring.measurements import KINDS
from lightning_sparse.app.values import (
    Check,
    anything,
    choice,
    count,
    counts,
    names,
    numbers,
    or_null,
    seed,
    text,
    texts,
)
from lightning_sparse.errors import SparsityError, check_flag, check_share


def _steps(name: str, value: Any) -> None:
    if not isinstance(value, list) or not all(isinstance(step, Mapping) and "_target_" in step for step in value):
        raise SparsityError(
            f"{name}={value!r:.100} is not a list of steps: write {name}=[{{_target_: lightning_sparse.compress.Code}}]"
        )


def _folder_name(name: str, value: Any) -> None:
    text("runs")(name, value)
    path = PurePath(str(value))
    if path.is_absolute() or not path.parts or ".." in path.parts or str(value) != str(value).strip():
        raise SparsityError(
            f"{name}={value!r} is not a folder inside output: write {name}=runs, and output=/a/folder/of/yours elsewhere"
        )


def _share(name: str, value: Any) -> None:
    check_share(name, value)


def _part(name: str, value: Any) -> None:
    if not 0.0 < check_share(name, value) < 1.0:
        raise SparsityError(f"{name}={value!r} leaves an empty split: write a share such as 0.1")


TOP: dict[str, Check] = {
    "task": choice(CLASSES, LANGUAGE),
    "seed": seed,
    "batchnorm": choice("trained", "recalibrated"),
    "controls": check_flag,
    "export": names(tuple(FORMS), "lightning_sparse.app.measuring.export_forms.FORMS", empty=True),
    "label": or_null(text("variant")),
    "bits": anything,  # depends on the compression
    "retry_failed": check_flag,
    "name": _folder_name,
    "output": text("outputs"),
}

MEASURED = {kind.group or kind.name: kind for kind in KINDS if kind.values}
"""The kinds of measurement that have a group."""

PLAIN: dict[str, Mapping[str, Check]] = {group: kind.values for group, kind in MEASURED.items()} | {
    "compression": {"steps": _steps, "epochs": count(0, write=5), "narrow": check_flag, "optimizer": anything},
    "logger": {
        "kind": choice("csv", "none", "wandb"),
        "project": text("lightning-sparse"),
        "mode": choice("offline", "online", "disabled"),
        "entity": or_null(text("my-team")),
        "tags": or_null(texts("paper")),
        "notes": or_null(text("why")),
    },
}
"""Groups that are settings and nothing else: no other key is one of theirs."""

SHARES = ("final_sparsity", "initial_sparsity", "birth_sparsity", "sparsity_at_densest", "turnover", "pruning_turnover")
"""Of a method: shares of the connections where they are numbers, so that no job of a sweep trains beside one that cannot."""

OF_TARGETS: dict[str, dict[str, Check]] = {
    "lightning_sparse.data.ImageData": {
        "shape": counts(3, "[1,8,8]"),
        "classes": count(2, write=10),
        "mean": numbers(),
        "std": numbers(positive=True),
        "shortcut": _share,
        "label_noise": _share,
        "images": or_null(count(2, write=1000)),
        "permute_pixels": check_flag,
        "download": check_flag,
        "batch_size": count(write=64),
        "validation": _part,
        "split_seed": seed,
        "shuffle_seed": seed,
        "num_workers": count(0),
    },
    "lightning_sparse.data.TextData": {
        "file": or_null(text("texts.csv")),
        "classes": count(2, write=10),
        "words": count(3, write=8000),
        "length": count(write=32),
        "test": _part,
        "label_noise": _share,
        "texts": or_null(count(2, write=1000)),
        "batch_size": count(write=64),
        "validation": _part,
        "split_seed": seed,
        "shuffle_seed": seed,
        "num_workers": count(0),
    },
    "lightning_sparse.models.Classifier": {"mean": or_null(numbers()), "std": or_null(numbers(positive=True))},
}
"""Of what has a ``_target_``, by its public name; the arguments that are not here are checked by what takes them."""
