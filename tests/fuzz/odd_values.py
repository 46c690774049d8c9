"""Values that people give by mistake, and values at the edges of what is right."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import torch
from hypothesis import strategies as st

_FLOATS = [0.0, 1.0, -0.0, 0.5, 1.5, 2.0, -1.0, 90.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan")]
_INTS = [0, 1, 2, 3, -1, 7, 100, 10**6, 10**12, 2**32, 2**63, -(10**12)]
_TEXTS = [
    "",
    " ",
    "a",
    "0.5",
    "8/255",
    "no",
    "none",
    "None",
    "True",
    "nan",
    "magnitude",
    "global",
    "gradient",
    "../x",
    "é",
]
_TENSORS = [
    torch.tensor(0.5),
    torch.tensor(float("nan")),
    torch.zeros(0),
    torch.ones(3),
    torch.zeros(2, 2, dtype=torch.int64),
    torch.rand(4, 1, 8, 8) * 255,
    torch.rand(4, 8, 8),
    torch.rand(4, 64),
    torch.full((4, 1, 8, 8), float("nan")),
    torch.zeros(4, dtype=torch.bool),
    torch.full((4,), -1),
]
_ARRAYS = [np.float32(0.5), np.int64(3), np.zeros(0), np.ones(3), np.array(["a"]), np.zeros((4, 8, 8)), np.array(None)]


def _returns(value):
    return lambda *arguments, **named: value


_FUNCTIONS = [_returns(None), _returns(1), _returns("a"), _returns(float("nan")), _returns({}), _returns(torch.ones(3))]
_OBJECTS = [object(), 1j, b"bytes", Fraction(1, 3), Decimal("0.5"), range(3), ...]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(_FLOATS),
    st.sampled_from(_INTS),
    st.sampled_from(_TEXTS),
    st.floats(),
    st.integers(),
    st.text(max_size=8),
)
values = st.one_of(
    scalars,
    scalars,
    st.sampled_from(_TENSORS),
    st.sampled_from(_ARRAYS),
    st.sampled_from(_FUNCTIONS),
    st.sampled_from(_OBJECTS),
    st.lists(scalars, max_size=3),
    st.lists(scalars, max_size=3).map(tuple),
    st.dictionaries(st.one_of(st.text(max_size=4), st.integers(), st.just("body.0.weight")), scalars, max_size=2),
    st.lists(st.sampled_from(_TENSORS), max_size=3),
    st.sets(st.integers(0, 3), max_size=2),
)
