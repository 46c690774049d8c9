"""What is written in different ways and means the same, written in one way, before jobs and measurements are named."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from lightning_sparse.errors import as_number

_MODES = {"": "offline", "dryrun": "offline", "run": "online"}  # W&B's older words in WANDB_MODE
_SEEDS = ("seed", "split_seed", "shuffle_seed")


def normal(config: dict[str, Any]) -> dict[str, Any]:
    """Write fractions as numbers, a single radius and a single form as lists, seeds of null as 0, and so on.

    Args:
        config: a configuration or some of its groups, as plain data.

    Example:
        >>> normal({"seed": None, "attack": {"eps": "8/255", "norm": "Linf"}, "transfer": {"eps": "2 / 255"}})
        {'seed': 0, 'attack': {'eps': [0.03137254901960784], 'norm': 'Linf'}, 'transfer': {'eps': 0.00784313725490196}}
        >>> normal({"callbacks": {"watch": {"eps": "8/255"}}})
        {'callbacks': {'watch': {'eps': 0.03137254901960784}}}
    """
    found = {name: _of_group(name, node) if isinstance(node, dict) else node for name, node in config.items()}
    if "seed" in found and found["seed"] is None:
        found["seed"] = 0
    if "export" in found:
        found["export"] = _forms(found["export"])
    for name in ("name", "output"):
        if isinstance(found.get(name), int) and not isinstance(found[name], bool):
            found[name] = str(found[name])
    return found


def normal_config(config: DictConfig) -> DictConfig:
    """The same of a job's whole configuration, its interpolations resolved."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    written: DictConfig = OmegaConf.create(normal(plain), flags={"allow_objects": True})
    OmegaConf.set_struct(written, True)
    return written


def _of_group(group: str, node: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {name: 0 if name in _SEEDS and item is None else item for name, item in node.items()}
    if group in ("attack", "transfer", "adversarial"):
        found |= {name: as_number(found[name]) for name in ("eps", "transfer_eps", "step_size") if name in found}
    if group == "callbacks":
        found |= {name: _of_callback(one) for name, one in found.items() if isinstance(one, dict) and "eps" in one}
    if group == "attack" and "eps" in found:
        found["eps"] = _radii(found["eps"])
    if group == "logger":  # as W&B takes a variable that is empty
        found |= {name: None for name in ("entity", "notes") if found.get(name) == ""}
        found |= {"project": "lightning-sparse"} if found.get("project") == "" else {}
    if group == "logger" and isinstance(found.get("mode"), str):
        found["mode"] = _MODES.get(found["mode"], found["mode"])
    return found


def _of_callback(node: dict[str, Any]) -> dict[str, Any]:
    eps = node["eps"]
    return {**node, "eps": [as_number(radius) for radius in eps] if isinstance(eps, list) else as_number(eps)}


def _forms(export: Any) -> Any:
    if export in (None, "none"):
        return []
    return [export] if isinstance(export, str) else export


def _radii(eps: Any) -> Any:
    if isinstance(eps, list):
        return [as_number(radius) for radius in eps]
    return [eps] if isinstance(eps, int | float) and not isinstance(eps, bool) and eps else eps
