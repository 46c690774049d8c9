"""Any mask and any numbers come back as they were, and in few bytes where there is something to predict."""

import lzma

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_sparse.compress.entropy_coder import decode_mask, decode_words, encode_mask, encode_words, turn


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    st.tuples(st.integers(1, 60), st.integers(1, 400)),
    st.floats(0, 1),
    st.sampled_from(["anywhere", "rows", "columns", "all but one", "one"]),
    st.integers(0, 2**32 - 1),
)
def test_any_mask_comes_back(shape, density, where, seed):
    chance = np.random.default_rng(seed)
    alive = chance.random(shape) < density
    if where == "rows":
        alive &= chance.random((shape[0], 1)) < 0.5
    elif where == "columns":
        alive |= chance.random(shape[1]) < 0.5
    elif where.endswith("one"):
        alive = np.full(shape, where.startswith("all"))
        alive.flat[chance.integers(alive.size)] ^= True
    living = int(alive.sum())
    if 0 < living < alive.size:  # others need no bytes, and have none in a file
        assert (decode_mask(encode_mask(alive), shape, living) == alive).all()


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    st.integers(0, 700),
    st.sampled_from([1, 2, 4, 8, 16]),
    st.sampled_from(["noise", "equal", "small", "high"]),
    st.integers(0, 2**32 - 1),
)
def test_any_numbers_come_back(count, size, kind, seed):
    words = np.random.default_rng(seed).integers(0, 256, (count, size), dtype=np.uint8)
    if kind == "equal":
        words[:] = words[:1]
    elif kind == "small":
        words[:, 1:] = 0
    elif kind == "high":
        words[:, -1] &= 0x83
    coded = encode_words(words)
    assert (decode_words(coded, count, size) == words).all()
    assert len(coded) <= count * size + 12
    if size in (2, 4, 8):
        assert (turn(turn(words), -1) == words).all()
        assert (turn(words).view(f"<u{size}") & 1 == words.view(f"<u{size}") >> (8 * size - 1)).all()


@pytest.mark.parametrize("shape", [(300, 784), (64, 576), (10, 100)])
def test_structure_is_worth_bytes_that_lzma_does_not_find(shape):
    chance = np.random.default_rng(0)
    rows, columns = chance.gamma(1, 1, (shape[0], 1)), chance.gamma(0.5, 2, shape[1])
    alive = chance.random(shape) < np.clip(0.1 * rows * columns, 0, 1)
    bits = np.packbits(alive).tobytes()
    raw = lzma.compress(bits, format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9}])
    assert len(encode_mask(alive)) < 0.92 * min(len(raw), len(bits))
