import pytest

from lightning_sparse.engine.times import check_time, to_step
from lightning_sparse.errors import SparsityError


@pytest.mark.parametrize(("value", "step"), [(0, 0), (0.0, 0), (0.5, 500), (0.0014, 1), (1.0, 1000), (70, 70)])
def test_int_is_steps_and_float_is_a_share(value, step):
    assert to_step(check_time("end", value), 1000) == step


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (1, "write 1.0 for the whole training, or 2 or more"),
        (1.5, "write 1.0 for the whole training, or 2 or more"),
        (5000.0, "write 5000 for that many"),
        (-1, "write a step >= 0"),
        (-0.1, "write a share such as 0.5"),
        (True, "not a time"),
        ("half", "not a time"),
    ],
)
def test_anything_but_a_time_is_refused_with_advice(value, advice):
    with pytest.raises(SparsityError, match="end=") as error:
        check_time("end", value)
    assert advice in str(error.value)


def test_a_share_of_an_unknown_length_names_the_ways_out():
    with pytest.raises(SparsityError, match=r"total_steps=.*max_steps"):
        to_step(0.5, None)
