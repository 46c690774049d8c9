"""Check what has a ``_target_`` by the arguments that it takes, without importing it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from lightning_sparse.app.settings.annotations import check_annotated
from lightning_sparse.app.signatures import arguments, definition, public_name, public_names, takes_anything
from lightning_sparse.app.subjects import SUBJECTS
from lightning_sparse.errors import SparsityError

_HYDRAS = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")
_WITH_TARGETS = ("data", "model", "sparsity", *SUBJECTS, "trainer", "callbacks", "compression")


def target_of(node: Mapping[str, Any]) -> str:
    """What a node's ``_target_`` names: the public name, if it is one of ours."""
    path = str(node.get("_target_", ""))
    found = definition(path)
    return (found and public_name(found)) or path


def check_targets(config: Mapping[str, Any]) -> None:
    """Raise on a ``_target_`` of ours that does not exist, and on an argument that a ``_target_`` does not take."""
    for group in ("data", "trainer"):
        if "_target_" not in config[group]:
            raise SparsityError(
                f"{group}._target_ is missing: write {group}={'digits' if group == 'data' else 'default'}"
            )
    if config["model"].get("_target_") in (None, "???"):
        raise SparsityError(
            "model._target_ is missing: write model._target_=package.Module, the import path of your module"
        )
    for name, node in config["callbacks"].items():
        if not isinstance(node, Mapping) or "_target_" not in node:
            raise SparsityError(f"callbacks.{name}={node!r} has no _target_: write ~callbacks.{name} to leave it out")
    for group in _WITH_TARGETS:
        for path, node in _nodes(group, config.get(group)):
            if "_partial_" in node and path.removeprefix("callbacks.").count(".") == 0:
                raise SparsityError(
                    f"{path}._partial_={node['_partial_']!r} would leave it unbuilt: leave _partial_ out"
                )
            _check(path, node)


def known_to(group: str) -> set[str]:
    """Every argument that a choice of a group in ``conf/`` has or takes."""
    return _known(group)


@cache
def _known(group: str) -> set[str]:
    import yaml  # type: ignore[import-untyped]

    known = set()
    for file in files("lightning_sparse.conf").joinpath(group).iterdir():
        node = yaml.safe_load(file.read_text(encoding="utf-8"))
        found = definition(str(node.get("_target_", "")))
        known |= {*node, *(arguments(found) if found else ())}
    return known - {"self"}


def _check(path: str, node: Mapping[str, Any]) -> None:
    target = node["_target_"]
    found = definition(target) if isinstance(target, str) else None
    if not isinstance(target, str) or not target.strip():
        raise SparsityError(f"{path}._target_={target!r} is not an import path: write {path}._target_=package.Name")
    if found is None:
        _refuse_misspelt(path, target)
        return
    taken, anything = arguments(found), takes_anything(found)
    known = [name for name in taken if name not in ("self", "cls")]
    for name, value in node.items():
        if name in taken:
            check_annotated(f"{path}.{name}", value, taken[name])
        elif name not in _HYDRAS and not anything:
            close = get_close_matches(str(name), known, n=1)
            guess = (
                f"did you mean {path}.{close[0]}?"
                if close
                else f"leave it out, or write ~{path}.{name} if a file has it"
            )
            listed = f" (it takes {', '.join(known)})" if len(known) <= 20 else ""
            raise SparsityError(f"{path}.{name}={value!r} is no argument of {target}: {guess}{listed}")


def _refuse_misspelt(path: str, target: str) -> None:
    wing, _, name = target.rpartition(".")
    names = public_names(wing)
    if names and name not in names:
        close = get_close_matches(name, names, n=1)
        guess = f"did you mean {wing}.{close[0]}?" if close else f"{wing} has {', '.join(names)}"
        raise SparsityError(f"{path}._target_={target!r} does not exist: {guess}")


def _nodes(path: str, node: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield path, node
        for name, item in node.items():
            yield from _nodes(f"{path}.{name}", item)
    elif isinstance(node, list):
        for place, item in enumerate(node):
            yield from _nodes(f"{path}.{place}", item)
