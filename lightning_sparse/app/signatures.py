"""What a ``_target_`` names and the arguments it takes, read from source: a name must not cost the import of torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

PUBLIC = (
    "lightning_sparse",
    *(
        f"lightning_sparse.{wing}"
        for wing in ("data", "models", "ephemeral", "export", "measure", "statistics", "compress")
    ),
)
UNKNOWN = object()  # the default of an argument that has none, or one that is not a literal


class Definition(NamedTuple):
    """A function or a class: the module that defines it, its name there, and its syntax."""

    module: str
    name: str
    node: ast.ClassDef | ast.FunctionDef


class Argument(NamedTuple):
    """An argument's annotation as written, and its default as plain data."""

    annotation: str
    default: Any


@cache
def definition(path: str) -> Definition | None:
    """Find what a dotted path names, following imports; None where only running the code could tell.

    Example:
        >>> definition("lightning_sparse.SparsityMonitor")[:2]
        ('lightning_sparse.callbacks.sparsity_monitor', 'SparsityMonitor')
    """
    above, _, name = path.rpartition(".")
    if not above or _spec(path):
        return None
    if _spec(above):
        return _look_up(above, name)
    owner = definition(above)  # of a method
    inside = [node for node in owner.node.body if _is_definition(node, name)] if owner else []
    return Definition(owner.module, f"{owner.name}.{name}", inside[-1]) if owner and inside else None


def public_name(found: Definition) -> str | None:
    """Its public name, if it is one of ours.

    Example:
        >>> public_name(definition("lightning_sparse.engine.schedules.Curve"))
        'lightning_sparse.Curve'
    """
    if not found.module.startswith("lightning_sparse."):
        return None
    names = (f"{wing}.{found.name}" for wing in PUBLIC)
    return next((name for name in names if definition(name) == found), None)


def arguments(found: Definition) -> dict[str, Argument]:
    """Its arguments by name, and those of its base where a class of ours passes ``**others`` on.

    Example:
        >>> arguments(definition("lightning_sparse.cubic"))["end"]
        Argument(annotation='Time', default=0.75)
    """
    node = found.node
    if isinstance(node, ast.FunctionDef):
        return _of_function(node.args)
    made = _init_of(node)
    if made is not None:
        own = _of_function(made.args)
        if made.args.kwarg is None or not found.module.startswith("lightning_sparse."):
            return own
    else:
        is_dataclass = any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
        fields = [part for part in node.body if is_dataclass and isinstance(part, ast.AnnAssign)]
        own = {ast.unparse(part.target): _argument(part.annotation, part.value) for part in fields}
    bases = (definition(f"{found.module}.{ast.unparse(base)}") for base in node.bases)
    inherited = (theirs for base in bases if base and base != found and (theirs := arguments(base)))
    return next(inherited, {}) | own


def takes_anything(found: Definition) -> bool:
    """Whether its arguments cannot be listed: it has ``**others``, is decorated, or inherits from what cannot be read.

    Example:
        >>> [takes_anything(definition(path)) for path in ("lightning_sparse.GradualPruning", "tqdm.tqdm")]
        [False, True]
    """
    node, ours = found.node, found.module.startswith("lightning_sparse.")
    if node.decorator_list and not found.module.startswith(("lightning_sparse.", "lightning.", "torch.")):
        return True
    made = node if isinstance(node, ast.FunctionDef) else _init_of(node)
    if made is not None and not (ours and made.args.kwarg and isinstance(node, ast.ClassDef)):
        return made.args.kwarg is not None or made.args.vararg is not None
    assert isinstance(node, ast.ClassDef)
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return False
    base = definition(f"{found.module}.{ast.unparse(node.bases[0])}") if node.bases else None
    return base is None or base == found or takes_anything(base)


def _init_of(node: ast.ClassDef) -> ast.FunctionDef | None:
    made = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
    return made[-1] if made else None  # the last one is the real one, after those that are overloads


def public_names(wing: str) -> list[str]:
    """The names that one of :data:`PUBLIC` lists; empty for any other module."""
    if wing not in PUBLIC:
        return []
    return [
        alias.asname or alias.name for node in _source(wing) if isinstance(node, ast.ImportFrom) for alias in node.names
    ]


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
        elif isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets):
            found = None  # it is what only running the code could tell
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    found = definition(f"{_origin(module, node)}.{alias.name}")
    return found


def _origin(module: str, node: ast.ImportFrom) -> str:
    """The module that is imported from: the first dot stands for a package itself, and for the package around a module."""
    if not node.level:
        return str(node.module)
    spec, parts = _spec(module), module.split(".")
    above = parts[: len(parts) - node.level + (spec is not None and spec.submodule_search_locations is not None)]
    return ".".join([*above, node.module] if node.module else above)


def _is_definition(node: ast.AST, name: str) -> TypeGuard[ast.ClassDef | ast.FunctionDef]:
    return isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            yield from _statements([*node.body, *node.orelse])


@cache
def _spec(module: str) -> ModuleSpec | None:
    """Find a module without importing its packages."""
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
    """The statements of a module; of our packages those of the stub, which lists their public names."""
    spec = _spec(module)
    path = Path(spec.origin) if spec and spec.origin else Path()
    stub = path.with_suffix(".pyi") if module in PUBLIC else path
    try:
        return ast.parse((stub if stub.exists() else path).read_bytes()).body
    except (OSError, SyntaxError, ValueError):  # compiled, or not there
        return []
