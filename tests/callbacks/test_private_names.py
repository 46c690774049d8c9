"""Lightning's private names are used in one file only, so that an upgrade needs a look at one place."""

import ast
from pathlib import Path

import lightning_sparse

PACKAGE = Path(lightning_sparse.__file__).parent
HOME = PACKAGE / "callbacks" / "trainer" / "private.py"
OTHERS = {
    "_global_forward_hooks",
    "_make_layer",
    "_post_accumulate_grad_hooks",
    "_target_",
}  # torch's, torchvision's and Hydra's


def private(name):
    return name.startswith("_") and not name.startswith("__")


def imported(tree):
    """Private names that are imported from Lightning."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lightning":
            yield from (alias.name for alias in node.names if private(alias.name))


def touched(tree):
    """Private attributes of other objects than self and its class, including those named by a string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            yield from (part.value for part in node.args if isinstance(part, ast.Constant) and private(str(part.value)))


def defined(tree):
    """Private names that the file itself defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            yield node.attr


def knows_lightning(tree):
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return any(name.split(".")[0] == "lightning" for name in names)


def test_lightnings_private_names_are_used_in_one_file():
    """The engine and anatomy do not import Lightning, and know the wrappers of Lightning and Fabric by name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = set(touched(tree)) - set(defined(tree)) - OTHERS if knows_lightning(tree) else set()
        found[path] = names | set(imported(tree))
    assert found.pop(HOME) >= {"_MultiProcessingLauncher", "_data_fetcher"}  # so it would see others
    assert {path.name: names for path, names in found.items() if names} == {}
