"""Adversarial images for each model, which are tried on the others when the sweep has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_sparse import measure
from lightning_sparse.app.measuring.kind import Kind, Settings, at_once
from lightning_sparse.app.measuring.trained import Trained
from lightning_sparse.app.values import anything, count, or_null, seed
from lightning_sparse.results.norms import OF_TEXTS
from lightning_sparse.results.records import Measured

if TYPE_CHECKING:
    from torch import Tensor, nn


def _settings(config: Settings) -> Settings | None:
    attack, transfer = config["attack"], dict(config["transfer"])
    if not (transfer["images"] and attack["eps"]) or attack["norm"] in OF_TEXTS:
        return None
    if transfer["eps"] is None:
        sizes, fixed = sorted(attack["eps"]), attack.get("transfer_eps")
        transfer["eps"] = fixed if fixed in sizes else sizes[(len(sizes) - 1) // 2]
    # The first of the images that robust accuracy attacks, so that the two can be compared.
    return transfer | {name: attack[name] for name in ("norm", "first")} | {"of": attack["images"]}


def _try(model: nn.Module, few: tuple[Tensor, Tensor], settings: Settings) -> None:
    measure.craft(model, few, eps=settings["eps"], norm=settings["norm"], steps=1)


def _measure(trained: Trained, settings: Settings) -> Measured:
    import numpy as np

    images, labels = trained.test({**settings, "images": settings["of"]})
    images, labels = images[: settings["images"]], labels[: settings["images"]]
    chosen = {name: settings[name] for name in ("eps", "norm", "steps", "seed")}
    adversarial = measure.craft(trained.model, (images, labels), **chosen)
    arrays = {"adversarial": adversarial, "images": images, "labels": labels}
    kept = {name: tensor.cpu().numpy() for name, tensor in arrays.items()}
    for name, shown in (("prediction", images), ("adversarial_prediction", adversarial)):
        kept[name] = measure.measure_accuracy(trained.model, (shown.to(trained.device), labels)).arrays["prediction"]
    return Measured([], kept | {name: np.array(chosen[name]) for name in ("eps", "norm")})


_VALUES = {
    "images": or_null(count(0, write=128)),
    "eps": anything,  # depends on the norm of the attack
    "steps": count(write=20),
    "seed": seed,
}
TRANSFER = Kind(
    "transfer",
    settings=_settings,
    values=_VALUES,
    try_on=_try,
    measure=at_once(_measure),
    of_texts=False,
)
