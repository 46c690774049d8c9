"""Ranks forked from a process that has everything imported are what spawned ones are."""

import json
import os

import pytest
import torch
from torch.multiprocessing import ProcessRaisedException, spawn

import warm_process

SCRIPT = """
import os, sys, torch
from torch.multiprocessing import spawn

drawn = None

def rank(number, file, tensor):
    assert os.environ["SET_BEFORE"] == "1"
    torch.save((os.getcwd(), drawn, tensor, torch.rand(3)), f"{file}-{number}.pt")

if __name__ == "__main__":
    os.environ["SET_BEFORE"] = "1"
    drawn = torch.ones(1)
    spawn(rank, (sys.argv[1], torch.arange(3)), nprocs=2)
"""


def told(number, folder):
    environment = os.environ.get("SET_BEFORE")
    (folder / f"{number}.json").write_text(json.dumps([environment, float(torch.rand(1))]))


def refuse(number):
    raise ValueError(f"said by {number}")


def test_tests_spawn_ranks_with_their_environment_and_random_numbers_of_their_own(tmp_path, monkeypatch):
    for value in ("1", "2"):
        monkeypatch.setenv("SET_BEFORE", value)
        spawn(told, (tmp_path,), nprocs=2)
        found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
        assert [environment for environment, _ in found] == [value, value]
        assert found[0][1] != found[1][1]


def test_what_cannot_be_pickled_or_is_raised_is_an_error_as_of_spawned_ranks():
    with pytest.raises(Exception, match=r"(?i)can't (pickle|get local)"):
        spawn(lambda rank: None, nprocs=1)
    with pytest.raises(ProcessRaisedException, match="said by 0"):
        spawn(refuse, nprocs=1)


def test_a_warm_command_spawns_from_itself_what_knows_only_the_script(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = warm_process.run("script.py", "out", cwd=tmp_path, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    found = [torch.load(tmp_path / f"out-{rank}.pt") for rank in (0, 1)]
    for folder, drawn, given, _ in found:
        assert folder == str(tmp_path)
        assert drawn is None
        assert given.tolist() == [0, 1, 2]
    assert not torch.equal(found[0][3], found[1][3])


def test_several_ranks_of_a_command_are_told_which_and_end_with_the_first_that_fails(tmp_path):
    code = "import os, sys, time\nrank = int(os.environ['LOCAL_RANK'])\nprint(rank, os.environ['WORLD_SIZE'])\n"
    (tmp_path / "good.py").write_text(code)
    (tmp_path / "bad.py").write_text(code + "if rank == 1: sys.exit('refused')\ntime.sleep(60)\n")
    of_process = {"cwd": tmp_path, "env": dict(os.environ), "each": warm_process.ranks(2), "seconds": 30}
    done = warm_process.run("good.py", **of_process)
    assert (done.returncode, sorted(done.stdout.splitlines())) == (0, ["0 2", "1 2"])
    done = warm_process.run("bad.py", **of_process)
    assert (done.returncode, done.stderr) == (1, "refused\n")
