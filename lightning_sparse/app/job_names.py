"""A job's name: its method, sparsity and seed, and a hash of the settings that differ from their defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import Any

from hydra.utils import instantiate

from lightning_sparse.app.compression import is_compressed
from lightning_sparse.app.measuring.measurements import KINDS
from lightning_sparse.app.signatures import UNKNOWN, Argument, arguments, definition, public_name
from lightning_sparse.app.subjects import in_words, subjects
from lightning_sparse.results.jobs import NAMING, Job, key_of

# Where a job runs and what it shows: these settings change no weight, and so no name.
_WHERE = {"accelerator", "devices", "default_root_dir"}
_SHOWN = {"enable_checkpointing", "enable_model_summary", "enable_progress_bar", "log_every_n_steps"}
_NOT_IN_KEY = {"data": {"download", "num_workers"}, "trainer": _WHERE | _SHOWN}
_SEEDS = ("seed", "shuffle_seed")
# Callbacks that only watch, ours and Lightning's: with them or without them, the weights are the same.
_WATCH = (
    {"SparsityMonitor", "RobustnessMonitor", "CheckpointAtTarget"}
    | {"ModelCheckpoint", "LearningRateMonitor", "DeviceStatsMonitor", "ThroughputMonitor"}
    | {"ModelSummary", "RichModelSummary", "TQDMProgressBar", "RichProgressBar"}
)


def job_of(config: Mapping[str, Any], choices: Mapping[str, str], output: Path) -> Job:
    """Name the job that a configuration describes.

    Args:
        config: the composed configuration as plain dicts, with ``data``, ``model``, ``sparsity``, ``trainer``,
            ``callbacks`` and ``seed``, and perhaps the groups of :data:`~lightning_sparse.app.subjects.SUBJECTS`,
            ``compression`` and ``bits``, a ``label`` and the groups of kinds that follow a training.
        choices: the choice in each group.
        output: the sweep's folder.

    Returns:
        The job. Its name ends in a hash of everything that affects the training, so that no training is done twice.
    """
    small = bool(config["sparsity"].get("small"))
    dense = "_target_" not in config["sparsity"] and not small
    model = _network(config["model"], choices["model"])
    asked = 0.0 if dense else _sparsity_asked(config["sparsity"])
    what = essence(_what_trains(config, dense))
    method, level = choices["sparsity"], "" if dense else f"-{asked:g}"
    data = choices["data"] + _planted(config["data"])
    compressed = is_compressed(config)
    if compressed:
        bits = _bits_asked(config)
        method, asked, level = choices["compression"], 1.0 - bits, "" if isnan(bits) else f"-{bits:g}"
    if config.get("label") and (compressed or not dense):
        method += f"-{config['label']}"
    name = method + level
    for group in subjects(config):
        # Counts as another model: its dense network was trained in the same way.
        told, part = in_words(group, choices[group], config[group])
        model += f" ({told})"
        name += f"-{part}"
    run = re.sub(r"[/\\]", "-", f"{name}-seed{config['seed']}-{key_of(what)}")
    seed = config["seed"] if isinstance(config["seed"], int) else -1  # refused when the job runs, under its own name
    training = key_of(_without_seeds(what))
    more: dict[str, Any] = {"training": training, "naming": NAMING, "compressed": compressed, "folder": output / run}
    if str(config["data"].get("_target_", "")).endswith(".TextData"):
        more["samples"] = "texts"
    return Job(run, method, data, model, seed, asked, **more)


def _network(node: Mapping[str, Any], choice: str) -> str:
    """What the network is called: the choice, or where that says whose it is, its own name."""
    net = node.get("net", {})
    if choice == "timm":
        return str(net.get("model_name", choice))
    target = {"own": node, "torchvision": net}.get(choice, {}).get("_target_")
    return str(target).rpartition(".")[2] if target else choice


def _planted(data: Mapping[str, Any]) -> str:
    """What makes them other data: whatever a network is compared with has learned the same."""
    noise = data.get("label_noise")
    said = [f"label noise {noise:g}"] if noise and isinstance(noise, int | float) else []
    said += [f"{data[what]} {what}" for what in ("images", "texts") if data.get(what) is not None]
    said += ["permuted pixels"] if data.get("permute_pixels") is True else []
    return f" ({', '.join(said)})" if said else ""


def _what_trains(config: Mapping[str, Any], dense: bool) -> dict[str, Any]:
    what = {name: config[name] for name in ("data", "model", "sparsity", "trainer", "callbacks", "seed")}
    for name, left_out in _NOT_IN_KEY.items():
        what[name] = {key: item for key, item in what[name].items() if key not in left_out}
    if config["trainer"].get("strategy", "auto") != "auto":
        what["trainer"]["devices"] = config["trainer"].get("devices")  # each takes its own batches
    what["callbacks"] = {key: item for key, item in what["callbacks"].items() if not _watches(item)}
    if what["data"].get("name") in ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn"):
        what["data"].pop("root", None)  # the same images in any folder; other data may differ
    # Only where they are on, so that jobs without them keep their names.
    what |= {group: config[group] for group in subjects(config)}
    what |= {name: config.get(name) for name in ("compression", "bits")} if is_compressed(config) else {}
    for kind in KINDS:  # what follows a training cannot be measured later
        if kind.callback and (settings := kind.settings(config)) is not None:
            what[kind.name] = settings
    return what | {"sparsity": {}} if dense else what


def _bits_asked(config: Mapping[str, Any]) -> float:
    """The bits asked for; nan where there are none, or such as are refused when the job runs."""
    bits = config.get("bits")
    return float("nan") if isinstance(bits, bool) or not isinstance(bits, int | float) else float(bits)


def _sparsity_asked(sparsity: Mapping[str, Any]) -> float:
    """The final sparsity; nan for what the callback will refuse when the job runs."""
    asked = sparsity.get("final_sparsity", sparsity.get("sparsity", 0.0))
    if isinstance(asked, Mapping):
        try:
            asked = instantiate(asked, _convert_="all").final  # a schedule
        except Exception:
            asked = None
    return float("nan") if isinstance(asked, bool) or not isinstance(asked, int | float) else float(asked)


def _watches(callback: Mapping[str, Any]) -> bool:
    found = definition(str(callback.get("_target_")))
    return found is not None and found.name in _WATCH and found.module.startswith(("lightning_sparse.", "lightning."))


def essence(value: Any, annotation: str = "float") -> Any:
    """The part of a configuration that makes a difference.

    A ``_target_`` of ours gets its public name, whatever path was written; an argument that equals its default is left out;
    1.0 becomes 1 where the signature takes a ``float`` or an ``int``, but not where it takes both or does not say, because
    there an int may count steps and a float may be a share of the training.

    Args:
        value: plain data.
        annotation: of the argument that gets this value, as text.

    Example:
        >>> essence({"_target_": "lightning_sparse.engine.schedules.cubic", "final": 1.0, "begin": 0, "end": 1.0})
        {'_target_': 'lightning_sparse.cubic', 'final': 1, 'end': 1.0}
    """
    if isinstance(value, Mapping):
        return _call(value) if "_target_" in value else {key: essence(item, annotation) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [essence(item, annotation) for item in value]
    takes_one_kind = len({"int", "float"} & set(re.findall(r"\w+", annotation))) == 1
    if isinstance(value, float) and value.is_integer() and (takes_one_kind or not value):
        return int(value)
    return value


def _call(node: Mapping[str, Any]) -> dict[str, Any]:
    found = definition(str(node["_target_"]))
    known = arguments(found) if found else {}
    kept = {"_target_": (found and public_name(found)) or node["_target_"]}
    for name, item in node.items():
        argument = known.get(name, Argument("", UNKNOWN))
        value, default = essence(item, argument.annotation), essence(argument.default, argument.annotation)
        if name != "_target_" and key_of(value) != key_of(default):
            kept[name] = value
    return kept


def _without_seeds(what: Any) -> Any:
    if not isinstance(what, Mapping):
        return what
    return {key: _without_seeds(item) for key, item in what.items() if key not in _SEEDS}
