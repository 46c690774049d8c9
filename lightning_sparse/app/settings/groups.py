"""The settings of each group in ``conf/`` that has no ``_target_``, and of ours that have one, each with its check."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from lightning_sparse.app.settings.kinds import Check, choice, count, counts, names, numbers, or_null, text, texts
from lightning_sparse.errors import SparsityError, check_flag, check_seed, check_share
from lightning_sparse.measure.robustness.tiers import TIERS


def _seed(name: str, value: Any) -> None:
    check_seed(value, name)


def _anything(name: str, value: Any) -> None:
    """Checked elsewhere."""


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


def _severities(name: str, value: Any) -> None:
    counts(None, "[1,2,3]")(name, value)
    if max(value) > 3:
        raise SparsityError(f"{name}={value!r} are not from 1, 2, 3: write {name}=[1,2,3]")


_ATTACKS = {attack for tier in TIERS.values() for attack in tier.attacks}
_MAPS = ("gradient", "integrated_gradients", "smoothgrad", "grad_cam")
_MEASURES = ("gini", "insertion_deletion_gap", "convergence_delta", "localisation", "randomisation", "max_sensitivity")
_ALL_MAPS = "lightning_sparse.measure.ATTRIBUTIONS"
_ALL_MEASURES = "lightning_sparse.measure.explanations.map_numbers.MEASURES"

TOP: dict[str, Check] = {
    "seed": _seed,
    "batchnorm": choice("trained", "recalibrated"),
    "controls": check_flag,
    "label": or_null(text("variant")),
    "retry_failed": check_flag,
    "name": _folder_name,
    "output": text("outputs"),
}

PLAIN: dict[str, dict[str, Check]] = {
    "attack": {
        "eps": _anything,  # together with the norm
        "transfer_eps": _anything,
        "norm": choice("Linf", "L2"),
        "tier": choice(*TIERS),
        "attacks": or_null(names(_ATTACKS, "lightning_sparse.measure.ATTACKS")),
        "steps": or_null(count(write=20)),
        "restarts": or_null(count()),
        "batch_size": count(write=256),
        "first": check_flag,
        "images": or_null(count(write=512)),
        "seed": _seed,
    },
    "saliency": {
        "methods": names(_MAPS, _ALL_MAPS, empty=True),
        "measures": names(_MEASURES, _ALL_MEASURES, empty=True),
        "max_sensitivity": names(_MAPS, _ALL_MAPS, empty=True),
        "layer": or_null(text("net.0")),
        "images": or_null(count(write=128)),
        "seed": _seed,
    },
    "stability": {
        "images": or_null(count(0, write=256)),
        "severities": _severities,
        "hessian_images": or_null(count(write=500)),
        "shift": count(write=2),
        "seed": _seed,
    },
    "transfer": {
        "images": or_null(count(0, write=128)),
        "eps": _anything,
        "steps": count(write=20),
        "seed": _seed,
    },
    "cost": {"images": or_null(count(0, write=1000))},
    "vog": {"images": or_null(count(0, write=512))},
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

ON = {
    "attack": "eps",
    "saliency": "methods",
    "stability": "images",
    "transfer": "images",
    "cost": "images",
    "vog": "images",
}
"""What turns each measurement on. Then all its settings have to be there, but those that have a default."""

HAVE_DEFAULTS = {"attack": ("transfer_eps", "batch_size", "seed"), "saliency": ("images", "layer")}

SHARES = ("final_sparsity", "initial_sparsity", "birth_sparsity", "sparsity_at_densest", "turnover", "pruning_turnover")
"""Of a method: shares of the connections where they are numbers, so that no job of a sweep trains beside one that cannot."""

OF_TARGETS: dict[str, dict[str, Check]] = {
    "lightning_sparse.data.ImageData": {
        "shape": counts(3, "[1,8,8]"),
        "classes": count(2, write=10),
        "mean": numbers(),
        "std": numbers(positive=True),
        "shortcut": _share,
        "download": check_flag,
        "batch_size": count(write=64),
        "validation": _part,
        "split_seed": _seed,
        "shuffle_seed": _seed,
        "num_workers": count(0),
    },
    "lightning_sparse.models.Classifier": {"mean": numbers(), "std": numbers(positive=True)},
}
"""Of what has a ``_target_``, by its public name; the arguments that are not here are checked by what takes them."""
