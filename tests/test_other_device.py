"""Trainings and measurements on a device that is none find what they find on a CPU, and never mix the two."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from other_device_script import CALLBACKS, MEASURES

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def found():
    """In a process of its own: a device cannot be taken back."""
    command = [sys.executable, str(HERE / "other_device_script.py")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_tensors_of_two_devices_are_an_error(found):
    assert found["mixed"] == "aten::add is given tensors of two devices"


@pytest.mark.parametrize("name", [*CALLBACKS, *MEASURES])
def test_it_is_the_same_on_another_device(name, found):
    assert found[name] == "same"


def test_no_name_stands_for_two_things():
    assert not CALLBACKS.keys() & MEASURES.keys()
