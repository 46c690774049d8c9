"""Every public function and class with odd values for one or two of its arguments: refused in our words, or rightly taken."""

import importlib
import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.odd_values import values
from fuzz.outcomes import may_be_right, result_or_refusal
from fuzz.valid_callbacks import CALLBACKS
from fuzz.valid_calls import FUNCTIONS, LEFT_OUT
from lightning_sparse import SparsityError

WINGS = ("", ".compress", ".export", ".measure", ".statistics", ".data", ".models", ".ephemeral")


def public(name):
    wing, _, last = name.rpartition(".")
    return getattr(importlib.import_module(f"lightning_sparse{'.' if wing else ''}{wing}"), last)


def test_every_public_name_is_tried_or_left_out_by_name():
    names = {
        f"{wing}.{name}".lstrip(".")
        for wing in WINGS
        for name in dir(importlib.import_module(f"lightning_sparse{wing}"))
        if not name.startswith("_")
        and not inspect.ismodule(getattr(importlib.import_module(f"lightning_sparse{wing}"), name))
    }
    assert names == {*FUNCTIONS, *CALLBACKS, *LEFT_OUT}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_odd_arguments_of_a_function(name, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # what is written to an odd path lies there
    function, right = public(name), FUNCTIONS[name]
    annotations = {p.name: p.annotation for p in inspect.signature(function).parameters.values()}

    @given(st.data())
    def try_some(data):
        arguments = right()
        chosen = data.draw(st.lists(st.sampled_from(sorted(arguments)), min_size=1, max_size=2, unique=True))
        odd = {argument: data.draw(values, label=argument) for argument in chosen}
        found = result_or_refusal(lambda: function(**arguments | odd))
        if not isinstance(found, SparsityError):
            wrong = {
                argument: value
                for argument, value in odd.items()
                if not may_be_right(argument, annotations[argument], value)
            }
            assert not wrong, f"{name} takes {wrong!r} in silence"

    if name != "load_masks":
        assert not isinstance(result_or_refusal(lambda: function(**right())), SparsityError)
    try_some()
