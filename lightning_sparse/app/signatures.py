"""What a ``_target_`` names and the arguments it takes, read from source: a name must not cost the import of torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

PUBLIC = ("lightning_sparse", *(f"lightning_sparse.{wing}" for wing in ("data", "models", "measure", "statistics")))
UNKNOWN = object()
"""A default that is no literal, or none at all."""


class Definition(NamedTuple):
    """A function or a class where it is defined: in which module, called what there, and its syntax."""

    module: str
    name: str
    node: ast.ClassDef | ast.FunctionDef


class Argument(NamedTuple):
    """An argument's annotation as it is written, and its default as plain data."""

    annotation: str
    default: Any


@cache
def definition(path: str) -> Definition | None:
    """Find what a dotted path names, through the imports of packages; None where only running the code could tell.

    Example:
        >>> definition("lightning_sparse.SparsityMonitor")[:2]
        ('lightning_sparse.callbacks.sparsity_monitor', 'SparsityMonitor')
    """
    module, rest = path, list[str]()
    while module and _spec(module) is None:
        module, _, name = module.rpartition(".")
        rest.insert(0, name)
    if not module or not rest:
        return None
    found = _look_up(module, rest[0])
    for name in rest[1:]:  # a method
        inside = [node for node in found.node.body if _is_definition(node, name)] if found else []
        found = Definition(found.module, f"{found.name}.{name}", inside[-1]) if found and inside else None
    return found


def public_name(found: Definition) -> str | None:
    """The name by which users know it, if it is one of ours: ``lightning_sparse.Curve`` for what lies in the engine.

    Example:
        >>> public_name(definition("lightning_sparse.engine.schedules.Curve"))
        'lightning_sparse.Curve'
    """
    if not found.module.startswith("lightning_sparse."):
        return None
    names = (f"{wing}.{found.name}" for wing in PUBLIC)
    return next((name for name in names if definition(name) == found), None)


def arguments(found: Definition) -> dict[str, Argument]:
    """Its arguments by name; where a class of ours hands ``**others`` on, those of its base too.

    Example:
        >>> arguments(definition("lightning_sparse.cubic"))["end"]
        Argument(annotation='Time', default=0.75)
    """
    node = found.node
    if isinstance(node, ast.FunctionDef):
        return _of_function(node.args)
    made = next((part for part in node.body if _is_definition(part, "__init__")), None)
    if isinstance(made, ast.FunctionDef):
        own = _of_function(made.args)
        hands_on = made.args.kwarg is not None and found.module.startswith("lightning_sparse.")
        return {**(_of_bases(found, node) if hands_on else {}), **own}
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
        own = {ast.unparse(part.target): _argument(part.annotation, part.value) for part in fields}
        return {**_of_bases(found, node), **own}
    return _of_bases(found, node)


def _of_bases(found: Definition, node: ast.ClassDef) -> dict[str, Argument]:
    bases = (definition(f"{found.module}.{ast.unparse(base)}") for base in node.bases)
    return next((theirs for base in bases if base and base != found and (theirs := arguments(base))), {})


def _of_function(args: ast.arguments) -> dict[str, Argument]:
    by_place = [*args.posonlyargs, *args.args]
    defaults = [*[None] * (len(by_place) - len(args.defaults)), *args.defaults, *args.kw_defaults]
    both = zip([*by_place, *args.kwonlyargs], defaults, strict=True)
    return {arg.arg: _argument(arg.annotation, default) for arg, default in both}


def _argument(annotation: ast.expr | None, default: ast.expr | None) -> Argument:
    try:
        value = UNKNOWN if default is None else ast.literal_eval(default)
    except ValueError:
        value = UNKNOWN
    return Argument(ast.unparse(annotation) if annotation else "", value)


def _look_up(module: str, name: str) -> Definition | None:
    found = None
    for node in _statements(_source(module)):
        if _is_definition(node, name):
            found = Definition(module, name, node)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    found = definition(f"{_origin(module, node)}.{alias.name}")
    return found


def _origin(module: str, node: ast.ImportFrom) -> str:
    """The module that is imported from, where dots lead up from a module or from within a package."""
    spec, up = _spec(module), node.level
    if not up:
        return str(node.module)
    parts = module.split(".")
    within = parts[: len(parts) - up + (spec is not None and spec.submodule_search_locations is not None)]
    return ".".join([*within, *([node.module] if node.module else [])])


def _is_definition(node: ast.AST, name: str) -> TypeGuard[ast.ClassDef | ast.FunctionDef]:
    return isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            yield from _statements([*node.body, *node.orelse])


@cache
def _spec(module: str) -> ModuleSpec | None:
    """Where a module lies, its packages not imported."""
    package, _, _ = module.rpartition(".")
    try:
        if not package:
            return find_spec(module)
        above = _spec(package)
        places = above and above.submodule_search_locations
        return PathFinder.find_spec(module, places) if places else None
    except (ImportError, ValueError):
        return None


@cache
def _source(module: str) -> list[ast.stmt]:
    """The statements of a module; of our packages those of the stub, from which their names are imported when first used."""
    spec = _spec(module)
    path = Path(spec.origin) if spec and spec.origin else Path()
    stub = path.with_suffix(".pyi") if module in PUBLIC else path
    try:
        return ast.parse((stub if stub.exists() else path).read_bytes()).body
    except (OSError, SyntaxError, ValueError):  # compiled, or not there
        return []
