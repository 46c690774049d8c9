"""The checks that every argument of their kind goes through."""

import pytest

from lightning_sparse.errors import SparsityError, check_count


@pytest.mark.parametrize(
    ("value", "limits", "says"),
    [
        (0, {}, r"n=0 is not an integer of at least 1: write 1$"),
        (2.0, {"write": 256}, r"n=2\.0 is not an integer of at least 1: write 256$"),
        (True, {"least": 0}, r"n=True is not an integer of at least 0: write 0$"),
        ("abc", {"least": None, "write": 0}, r"n='abc' is not an integer: write 0$"),
        (17, {"most": 16, "write": "8, or none"}, r"n=17 is not an integer in \[1, 16\]: write 8, or none$"),
    ],
)
def test_anything_but_a_count_is_refused_with_what_to_write(value, limits, says):
    with pytest.raises(SparsityError, match=says):
        check_count("n", value, **limits)


def test_a_count_comes_back():
    assert [check_count("n", 1), check_count("n", -3, None), check_count("n", 16, most=16)] == [1, -3, 16]
