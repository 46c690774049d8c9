"""What is read from source is what Python says about the imported object."""

import inspect
import re
from importlib import import_module
from pkgutil import resolve_name

import pytest
from lightning.pytorch import callbacks

from lightning_sparse.app.signatures import PUBLIC, UNKNOWN, arguments, definition, public_name

OURS = [f"{wing}.{name}" for wing in PUBLIC for name in import_module(wing).__all__ if name != "__version__"]
THEIRS = ["lightning.pytorch.Trainer", "lightning.pytorch.trainer.Trainer", "hydra.core.plugins.Plugins.instance"]
THEIRS += [f"torch.optim.{name}" for name in ("SGD", "Adam", "AdamW", "Adadelta", "LBFGS")]
THEIRS += [f"lightning.pytorch.callbacks.{name}" for name in callbacks.__all__ if name != "Callback"]


@pytest.mark.parametrize(
    "path", [path for path in OURS if callable(resolve_name(path)) and not path.endswith("Error")] + THEIRS
)
def test_names_and_defaults_are_those_of_the_imported_object(path):
    made, found = resolve_name(path), definition(path)
    assert (found.module, found.name) == (made.__module__, made.__qualname__)
    assert public_name(found) == (path if path.startswith("lightning_sparse") else None)
    known = {name: argument for name, argument in arguments(found).items() if name not in ("self", "cls")}
    for name, parameter in inspect.signature(made).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        argument = known[name]
        if argument.default is not UNKNOWN:
            assert (argument.default, type(argument.default)) == (parameter.default, type(parameter.default))
        else:
            assert parameter.default is parameter.empty or type(parameter.default) not in (str, bool, int, type(None))
        words = set(re.findall(r"\bint\b|\bfloat\b", str(parameter.annotation)))
        assert set(re.findall(r"\bint\b|\bfloat\b", argument.annotation)) == words


def test_a_class_of_ours_takes_what_it_hands_on_to_its_base():
    assert {"turnover", "redistribute", "every"} < arguments(definition("lightning_sparse.RigL")).keys()
    assert arguments(definition("lightning_sparse.RigL"))["every"].default == 100
    assert arguments(definition("lightning_sparse.GraSP"))["redistribute"].default is False


@pytest.mark.parametrize(
    "path",
    [
        "",
        "nowhere",
        "nowhere.Class",
        ".relative.Class",
        "..x",
        "a..b",
        "torch",
        "torch.nowhere",
        "torch.Tensor.abs",
        "???",
        "a b.c",
        "os.path.join.x",
        "__main__.X",
    ],
)
def test_what_only_running_could_tell_is_not_known(path):
    assert definition(path) is None


def test_a_user_may_write_classes_as_python_lets_them(tmp_path, monkeypatch):
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text("from .inner import Net as Model\nfrom . import inner\n")
    (tmp_path / "my_package" / "inner.py").write_text(
        "from dataclasses import dataclass\n"
        "try:\n    from nowhere import Base\nexcept ImportError:\n"
        "    class Base:\n        def __init__(self, width: float = 1.0): ...\n"
        "class Net(Base):\n    pass\n"
        "@dataclass\nclass Settings:\n    depth: int\n    at: int | float = -0.5\n"
    )
    (tmp_path / "broken.py").write_text("class Net(\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert definition("my_package.Model")[:2] == ("my_package.inner", "Net")
    assert arguments(definition("my_package.inner.Settings"))["at"] == ("int | float", -0.5)
    assert definition("broken.Net") is None


def test_a_name_that_is_made_anew_and_an_init_with_overloads(tmp_path, monkeypatch):
    (tmp_path / "made_anew.py").write_text(
        "from typing import overload\n\ndef build(width): ...\n\nbuild = print\n\n"
        "class Over:\n    @overload\n    def __init__(self, width: int): ...\n    @overload\n"
        "    def __init__(self, deep: bool): ...\n    def __init__(self, width=1, deep=True, hidden=3): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert definition("made_anew.build") is None
    assert set(arguments(definition("made_anew.Over"))) == {"self", "width", "deep", "hidden"}
