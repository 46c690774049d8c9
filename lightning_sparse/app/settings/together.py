"""Check settings of which one says what another may be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lightning_sparse.app.compression import is_compressed
from lightning_sparse.app.settings.compression import check_compression
from lightning_sparse.app.settings.groups import OF_TARGETS
from lightning_sparse.app.settings.targets import known_to, target_of
from lightning_sparse.errors import SparsityError, check_choice, check_count, check_flag, check_share

_OURS = {"callbacks": "+callbacks.name._target_=...", "logger": "logger=csv", "default_root_dir": "output=..."}


def check_together(config: Mapping[str, Any]) -> None:
    """Raise a SparsityError on the first settings that do not go together."""
    _check_radii(config)
    _check_adversarial(config["adversarial"])
    _check_augment(config)
    _check_weight_noise(config.get("weight_noise", {}))
    if (vectors := config.get("vectors", {})).get("directions") is not None and "_target_" not in vectors:
        raise SparsityError(
            f"vectors.directions={vectors['directions']!r} takes the top out of vectors that were trained before: write "
            "vectors=glove, or vectors=file vectors.file=/path/to/vectors.txt"
        )
    if (steering := config.get("steering", {})).get("score") and "_target_" not in steering:
        raise SparsityError(
            f"steering.score={steering['score']!r} steers nothing: write steering=loss, and then the score"
        )
    _check_activation(config)
    _check_channels(config)
    check_compression(config)
    _check_logger(config["logger"])
    if target_of(config["trainer"]).endswith(".Trainer"):
        _check_trainer(config["trainer"])


def _check_radii(config: Mapping[str, Any]) -> None:
    attack, transfer = config["attack"], config["transfer"]
    norm, eps = attack.get("norm", "Linf"), attack.get("eps")
    if eps is not None and eps != 0 and not isinstance(eps, list):
        example = "[2/255,8/255]" if norm == "Linf" else "[0.25,0.5]"
        raise SparsityError(f"attack.eps={eps!r} is not a list of radii: write attack.eps={example}")
    for radius in eps or []:
        check_radius("attack.eps", radius, norm)
    for name, value in (("attack.transfer_eps", attack.get("transfer_eps")), ("transfer.eps", transfer.get("eps"))):
        if value is not None:
            check_radius(name, value, norm)


def check_radius(name: str, value: Any, norm: str) -> None:
    """As that of :mod:`~lightning_sparse.measure.robustness.radii`, imported only to refuse: it comes with torch."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
    if not fits or (norm in ("Linf", "synonyms") and value > 1):
        from lightning_sparse.measure.robustness import radii

        radii.check_radius(name, value, norm)


def _check_adversarial(node: Mapping[str, Any]) -> None:
    eps, norm = node.get("eps"), check_choice("adversarial.norm", node.get("norm", "Linf"), ("Linf", "L2"))
    if eps is not None and eps != 0:
        check_radius("adversarial.eps", eps, norm)
        if "_target_" not in node:
            raise SparsityError(f"adversarial.eps={eps!r} trains nothing: write adversarial=pgd or adversarial=fgsm")
    if "eps" not in node:
        raise SparsityError("adversarial.eps is missing: write adversarial=none")
    if "_target_" not in node and (others := [name for name in node if name != "eps"]):
        raise SparsityError(f"adversarial.{others[0]} is no setting of adversarial=none: write adversarial=pgd")
    if "steps" in node:
        check_count("adversarial.steps", node["steps"], write=7)


def _check_augment(config: Mapping[str, Any]) -> None:
    node = config.get("augment", {})
    if "_target_" not in node and (others := [name for name in node if (name, node[name]) != ("pad", 0)]):
        raise SparsityError(
            f"augment.{others[0]}={node[others[0]]!r} is no setting of augment=none: write augment=standard"
        )
    if "_target_" in node and target_of(config["data"]) == "lightning_sparse.data.TextData":
        raise SparsityError("texts cannot be shifted and mirrored: write augment=none")


def _check_weight_noise(node: Mapping[str, Any]) -> None:
    if "_target_" not in node and (others := [name for name in node if (name, node[name]) != ("p", 0)]):
        raise SparsityError(
            f"weight_noise.{others[0]}={node[others[0]]!r} is no setting of weight_noise=none: write "
            "weight_noise=dropconnect or weight_noise=targeted"
        )


def _check_activation(config: Mapping[str, Any]) -> None:
    node = config.get("activation", {})
    density = node.get("density")
    if (
        isinstance(density, int | float)
        and not isinstance(density, bool)
        and not check_share("activation.density", density)
    ):
        raise SparsityError("activation.density=0 leaves a layer nothing to read: write activation.density=0.1")
    if "_target_" not in node:
        refuse = [name for name in node if name not in known_to("activation")]
        if refuse:
            raise SparsityError(f"activation.{refuse[0]} is no setting of activation=none: write activation=k_winners")
        return
    if is_compressed(config):
        raise SparsityError(
            "a compressed network's string does not say which activations are kept: write activation=none or compression=none"
        )
    if config.get("export"):
        raise SparsityError(
            f"export={config['export']}: exported networks would read all inputs: write activation=none or export=none"
        )


def _check_channels(config: Mapping[str, Any]) -> None:
    shape = config["data"].get("shape")
    for group in ("data", "model"):
        node = config[group]
        for name in ("mean", "std") if target_of(node) in OF_TARGETS and isinstance(shape, list) else ():
            if name in node and len(node[name]) not in (1, shape[0]):
                raise SparsityError(
                    f"{group}.{name}={node[name]} holds {len(node[name])} numbers, but images of data.shape={shape} have "
                    f"{shape[0]} channel{'s' * (shape[0] > 1)}: write {group}.{name}={[0.5] * shape[0]}"
                )


def _check_logger(node: Mapping[str, Any]) -> None:
    kind = node.get("kind")
    if kind is None:
        raise SparsityError("logger.kind is missing: write logger=csv, logger=wandb or logger=none")
    others = [name for name in node if name != "kind"]
    if kind != "wandb" and others:
        raise SparsityError(f"logger.{others[0]} is a setting of W&B, not of logger={kind}: write logger=wandb")
    for name in ("project", "mode"):
        if kind == "wandb" and name not in node:
            raise SparsityError(f"logger.{name} is missing: write logger=wandb, and change its settings")


def _check_trainer(node: Mapping[str, Any]) -> None:
    for name, instead in _OURS.items():
        if node.get(name) is not None:
            raise SparsityError(f"trainer.{name}={node[name]!r} would not be read: write {instead} instead")
    if node.get("enable_checkpointing") not in (None, True):
        raise SparsityError(
            f"trainer.enable_checkpointing={node['enable_checkpointing']!r} cannot be: a killed training resumes from a "
            "checkpoint, and the measurements read the last one. Leave it out"
        )
    epochs, bounded = node.get("max_epochs"), node.get("max_steps", -1) != -1 or node.get("max_time") is not None
    if not (bounded and epochs in (None, -1)):
        check_count("trainer.max_epochs", epochs, write=20)
    if node.get("max_steps", -1) != -1:
        check_count("trainer.max_steps", node["max_steps"], write=1000)
    batches = node.get("limit_train_batches")
    if isinstance(batches, int | float) and not batches > 0:
        raise SparsityError(
            f"trainer.limit_train_batches={batches!r} trains nothing: write trainer.limit_train_batches=1.0"
        )
    if node.get("enable_progress_bar") is not None:
        check_flag("trainer.enable_progress_bar", node["enable_progress_bar"])
    if isinstance(node.get("deterministic"), str):
        check_choice("trainer.deterministic", node["deterministic"], ("warn",))
    if node.get("fast_dev_run"):
        raise SparsityError(
            "trainer.fast_dev_run keeps no trained model to measure: write trainer.max_epochs=1 instead"
        )
