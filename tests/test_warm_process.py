"""A command forked from a process that has everything imported is what a cold one is."""

import json
import os
import subprocess
import sys

import pytest

import warm_process

PROBE = """
import json, multiprocessing.process, os, random, sys, threading
import numpy as np
import torch
import neighbour

main = sys.modules["__main__"]
told = {
    "arguments": sys.argv[1:], "file": sys.argv[0], "main": [main.__name__, main.__spec__.name], "path": sys.path[0],
    "folder": os.getcwd(), "started in": multiprocessing.process.ORIGINAL_DIR, "environment": dict(os.environ),
    "input": sys.stdin.read(), "threads": [threading.active_count(), torch.get_num_threads()], "W&B": "wandb" in sys.modules,
    "bytecode": sys.dont_write_bytecode,
}
print(json.dumps([told, [os.getpid(), random.random(), float(np.random.rand()), float(torch.rand(1))]]))
print("to the other", file=sys.stderr)
"""


@pytest.fixture
def both(tmp_path):
    """Run some code as a module, cold and forked."""
    (tmp_path / "neighbour.py").write_text("")

    def run(code, *arguments):
        (tmp_path / "probe.py").write_text(code)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        of_process = {"cwd": tmp_path, "env": kept | {"OMP_NUM_THREADS": "1", "OF_ITS_OWN": "1"}}
        of_process["env"]["PYTHONDONTWRITEBYTECODE"] = "" if sys.dont_write_bytecode else "1"
        cold = subprocess.run(
            [sys.executable, "-m", "probe", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False, **of_process,
        )  # fmt: skip
        return cold, [warm_process.run("probe", *arguments, **of_process) for _ in range(2)]

    return run


def test_it_has_a_cold_processs_surroundings_and_random_numbers_of_its_own(both, tmp_path):
    cold, forked = both(PROBE, "-m", "a=b c")
    told, drawn = json.loads(cold.stdout)
    assert told["folder"] == told["started in"] == told["path"] == str(tmp_path)
    numbers = [drawn]
    for fork in forked:
        assert (fork.returncode, fork.stderr) == (cold.returncode, cold.stderr) == (0, "to the other\n")
        same, others = json.loads(fork.stdout)
        assert same == told
        numbers.append(others)
    assert all(len(set(column)) == 3 for column in zip(*numbers, strict=True))


@pytest.mark.parametrize(
    "end",
    ["pass", "sys.exit()", "sys.exit(2)", "sys.exit(-1)", "sys.exit('refused')", "sys.exit([1])", "1 / 0",
     "os.kill(os.getpid(), 9)", "os._exit(3)", "import atexit; atexit.register(print, 'at the end')",
     "import threading; threading.Timer(0.1, print, ['late']).start()"],
)  # fmt: skip
def test_it_ends_as_a_cold_process_does(both, end):
    cold, forked = both(f"import os, sys\nprint('begun', flush=True)\n{end}\n")
    for fork in forked:
        assert (fork.returncode, fork.stdout) == (cold.returncode, cold.stdout)
        assert fork.stderr.splitlines()[-1:] == cold.stderr.splitlines()[-1:]


def test_a_script_has_its_own_folder_on_the_path(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "beside.py").write_text("")
    (tmp_path / "folder" / "script.py").write_text("import beside, os, sys\nprint(__file__, os.getcwd(), sys.path[0])")
    of_process = {"cwd": tmp_path, "env": dict(os.environ)}
    cold = subprocess.run(
        [sys.executable, "folder/script.py"], capture_output=True, text=True, check=True, **of_process
    )
    assert warm_process.run("folder/script.py", **of_process).stdout == cold.stdout


def test_one_that_takes_too_long_is_ended_and_the_next_is_run(tmp_path):
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(60)\n")
    (tmp_path / "fast.py").write_text("print('done')\n")
    with pytest.raises(subprocess.TimeoutExpired):
        warm_process.run("slow", cwd=tmp_path, env=dict(os.environ), seconds=1)
    assert warm_process.run("fast", cwd=tmp_path, env=dict(os.environ)).stdout == "done\n"
