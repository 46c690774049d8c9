"""Check a composed configuration: no key that nothing reads, no value of the wrong kind."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from lightning_sparse.app.settings.groups import MEASURED, OF_TARGETS, PLAIN, SHARES, TOP
from lightning_sparse.app.settings.targets import check_targets, known_to, target_of
from lightning_sparse.app.settings.together import check_together
from lightning_sparse.app.subjects import SUBJECTS
from lightning_sparse.app.values import Check
from lightning_sparse.errors import SparsityError, check_share

_CHOICES = {"data": "digits", "model": "lenet_300_100", "sparsity": "dense", "trainer": "default", "logger": "none"}
# Groups that are off where they are missing.
_MAY_MISS = {"saliency", "stability", "cost", "activity", "latency", "layer_sensitivity", "biases", "predictability"}
_MAY_MISS |= {"examples", "compression", "activation", "weight_noise", "steering", "vectors", "augment"}
_MAPPINGS = ("data", "model", "sparsity", "trainer", *SUBJECTS, "callbacks", *PLAIN)


def check_settings(config: Mapping[str, Any], *, overrides: Iterable[str] = (), raw: str | None = None) -> None:
    """Raise a SparsityError on the first setting that nothing reads, that is missing, or whose value is of another kind.

    Args:
        config: the configuration as plain data, without ``hydra``, written as :func:`~.normal.normal` writes it.
        overrides: those of the command line.
        raw: the configuration as text, before its interpolations are resolved: a key of the user's own may be there for them.
            None leaves the keys at the top alone.

    Example:
        >>> check_settings({"sed": 1}, overrides=["+sed=1"], raw="")
        Traceback (most recent call last):
        lightning_sparse.SparsityError: sed=1 is no setting: did you mean seed?
    """
    _check_top(config, [_added(override) for override in overrides], raw)
    for group in _MAPPINGS:
        _check_is_there(group, config)
    for group, checks in PLAIN.items():
        if node := config.get(group):
            refuse_unknown(group, node, checks)
            check_values(group, node, checks)
    for group, kind in MEASURED.items():
        node = config.get(group, {})
        missing = [name for name in kind.values if name not in node and name not in (kind.switch, *kind.optional)]
        if node.get(kind.switch) and missing:
            choose = f"{group}={config['data'].get('name', 'digits')}" if group == "attack" else f"{group}=default"
            raise SparsityError(f"{group}.{missing[0]} is missing: write {choose}, and change its settings")
    _check_sparsity(config["sparsity"])
    check_targets(config)
    for group in ("data", "model"):
        check_values(group, config[group], OF_TARGETS.get(target_of(config[group]), {}))
    check_together(config)


def check_values(group: str, node: Mapping[str, Any], checks: Mapping[str, Check]) -> None:
    """Raise on the first value of the wrong kind."""
    for name, check in checks.items():
        if name in node:
            check(f"{group}.{name}", node[name])


def refuse_unknown(group: str, node: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise on the first key that is not known, and say which one may have been meant."""
    for name, value in node.items():
        if name not in known:
            close = get_close_matches(str(name), known, n=1)
            listed = f" ({group} has {', '.join(known)})" if len(known) < 15 else ""
            guess = f"did you mean {group}.{close[0]}?" if close else f"leave it out{listed}"
            raise SparsityError(f"{group}.{name}={value!r} is no setting: {guess}")


def _check_top(config: Mapping[str, Any], added: Collection[str], raw: str | None) -> None:
    known = [*TOP, *_MAPPINGS]
    for name, value in config.items():
        if raw is None or name in known or re.search(rf"\$\{{[^}}]*\b{re.escape(str(name))}\b", raw):
            continue
        close = get_close_matches(str(name), known, n=1, cutoff=0.6 if name in added else 0.8)
        # A file of the user's own may keep anything else at hand, also the plural of a setting.
        if name in added or (close and str(name) != f"{close[0]}s"):
            guess = f"did you mean {close[0]}?" if close else "leave it out"
            raise SparsityError(f"{name}={value!r} is no setting: {guess}")
    for name, check in TOP.items():
        if name not in config and name not in ("batchnorm", "controls", "export", "bits"):
            raise SparsityError(f"{name} is missing: leave out ~{name}")
        if name in config:
            check(name, config[name])


def _added(override: str) -> str:
    """The top-level key that an override adds."""
    found = re.match(r"\++(?:[^@=]*@)?([^@=.]+)", override)
    return found[1] if found else ""


def _check_is_there(group: str, config: Mapping[str, Any]) -> None:
    if group in config and isinstance(config[group], Mapping):
        return
    if group not in config and group in _MAY_MISS:
        return
    if group == "callbacks":
        raise SparsityError("callbacks is no group of settings: write callbacks={} or ~callbacks.monitor")
    said = f"{group}={config[group]!r} is no group of settings" if group in config else f"{group} is missing"
    raise SparsityError(f"{said}: write {group}={_CHOICES.get(group, 'none')}")


def _check_sparsity(node: Mapping[str, Any]) -> None:
    if "_target_" in node:
        for name in SHARES:
            if isinstance(node.get(name), int | float) and not isinstance(node[name], bool):
                check_share(f"sparsity.{name}", node[name])
        return
    if "small" in node:
        refuse_unknown("sparsity", node, ("small", "final_sparsity"))
        if node["small"] is not True:
            raise SparsityError(
                f"sparsity.small={node['small']!r} is what makes small_dense: write sparsity=dense for none"
            )
    else:  # dense takes the settings of any method, so that a sweep over methods composes
        refuse_unknown("sparsity", node, known_to("sparsity"))
