"""A packed file that is damaged, cut, forged or something else is refused, and the model left alone."""

import hashlib
import json
import random
import struct
import tracemalloc
import zlib

import pytest

from export.packed_networks import same_bits, tiny
from lightning_sparse import SparsityError
from lightning_sparse.export import load_packed, packed_table, save_packed
from lightning_sparse.export.packed_file import FORMAT


@pytest.mark.parametrize("change", [0x01, 0x80, 0xFF])
def test_every_damaged_byte_is_refused_and_the_model_left_alone(tmp_path, change):
    save_packed(tiny(), None, tmp_path / "whole")
    content, model, path = (tmp_path / "whole").read_bytes(), tiny(), tmp_path / "net.packed"
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ change]) + content[place + 1 :])
        with pytest.raises(SparsityError, match=r"no packed file|truncated or damaged|has format"):
            load_packed(path, model)
        with pytest.raises(SparsityError):
            packed_table(path)
    assert same_bits(model, tiny())


def test_every_truncation_and_any_addition_is_refused(tmp_path):
    save_packed(tiny(), None, tmp_path / "whole")
    content, path = (tmp_path / "whole").read_bytes(), tmp_path / "net.packed"
    for damaged in [*(content[:length] for length in range(len(content))), content + b"\0", content * 2]:
        path.write_bytes(damaged)
        with pytest.raises(SparsityError, match=r"no packed file|truncated or damaged"):
            load_packed(path, tiny())


@pytest.mark.parametrize(
    "content", [b"", b"<html>404</html>", b"PK\x03\x04" + bytes(99), b"\x80\x02}q\x00.", bytes(500)]
)
def test_foreign_files_are_refused(tmp_path, content):
    (tmp_path / "net.packed").write_bytes(content)
    with pytest.raises(SparsityError, match="is no packed file: give one that save_packed wrote"):
        load_packed(tmp_path / "net.packed", tiny())


def forged(path, change, streams=None, version=FORMAT, raw=None):
    """Write a file again with another header and a right checksum, as nobody does by accident."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<I", content, 41)
    header = json.loads(zlib.decompress(content[45 : 45 + length]))
    change(header)
    packed = zlib.compress(json.dumps(header).encode()) if raw is None else raw
    rest = struct.pack("<I", len(packed)) + packed + (content[45 + length :] if streams is None else streams)
    digest = hashlib.sha256(bytes([version]) + rest).digest()
    path.write_bytes(content[:8] + bytes([version]) + digest + rest)


def test_a_newer_format_is_named_with_what_to_do(tmp_path):
    save_packed(tiny(), None, tmp_path / "net.packed")
    forged(tmp_path / "net.packed", lambda header: None, version=FORMAT + 1)
    with pytest.raises(
        SparsityError, match=rf"format {FORMAT + 1}, .* reads format {FORMAT}: write pip install --upgrade"
    ):
        load_packed(tmp_path / "net.packed", tiny())


FORGERIES = {
    "huge shape": lambda h: h["parts"][0].update(shapes=[[10**9, 10**9]]),
    "huge living": lambda h: h["parts"][0].update(living=10**15),
    "other living": lambda h: h["parts"][0].update(living=h["parts"][0]["living"] + 1),
    "negative size": lambda h: h["parts"][0].update(shapes=[[-5, -6]]),
    "size of a float": lambda h: h["parts"][0].update(shapes=[[5.0, 6.0]]),
    "negative bytes": lambda h: h["parts"][0].update(bytes=[-4, 4]),
    "other bytes": lambda h: h["parts"][0].update(bytes=[3, h["parts"][0]["bytes"][1]]),
    "moved bytes": lambda h: h["parts"][0].update(bytes=[0, sum(h["parts"][0]["bytes"])]),
    "other code": lambda h: h["parts"][0].update(coded="int3"),
    "no code": lambda h: h["parts"][0].update(coded="pickle"),
    "huge code": lambda h: h["parts"][0].update(coded="int9999999999"),
    "no names": lambda h: h["parts"][0].update(names=[], shapes=[]),
    "a name twice": lambda h: h["parts"].append(h["parts"][0] | {"bytes": [0, 0]}),
    "another name of none": lambda h: h.update(same={"a": "b"}),
    "another name of a list": lambda h: h.update(same={"a": []}),
    "a part of a list": lambda h: h.update(parts=[[]]),
    "parts of a number": lambda h: h.update(parts=3),
    "new field": lambda h: h["parts"][0].update(more=1),
    "no check": lambda h: h.pop("check"),
    "other check": lambda h: h.update(check=1),
    "two sparse in one": lambda h: h["parts"][1].update(sparse=True),
    "sparse by a word": lambda h: h["parts"][0].update(sparse="yes"),
}


@pytest.mark.parametrize("how", FORGERIES)
def test_a_forged_header_is_refused_without_a_huge_allocation(tmp_path, how):
    save_packed(tiny(), None, tmp_path / "net.packed")
    forged(tmp_path / "net.packed", FORGERIES[how])
    tracemalloc.start()
    try:
        with pytest.raises(SparsityError):
            load_packed(tmp_path / "net.packed", tiny())
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "raw", [b"", b"x", zlib.compress(b"["), zlib.compress(b"[" * 10**5), zlib.compress(bytes(2**27))]
)
def test_a_header_of_something_else_is_refused(tmp_path, raw):
    save_packed(tiny(), None, tmp_path / "net.packed")
    forged(tmp_path / "net.packed", lambda header: None, raw=raw)
    with pytest.raises(SparsityError, match="damaged"):
        packed_table(tmp_path / "net.packed")


def test_other_streams_are_refused(tmp_path):
    model, path = tiny(), tmp_path / "net.packed"
    save_packed(model, None, path)
    content = path.read_bytes()
    (length,) = struct.unpack_from("<I", content, 41)
    streams, choose = content[45 + length :], random.Random(0)
    for _ in range(200):
        forged(path, lambda header: None, streams=choose.randbytes(len(streams)))
        with pytest.raises(SparsityError, match="cannot be decoded"):
            load_packed(path, model)
    assert same_bits(model, tiny())
