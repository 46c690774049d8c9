"""The command refuses in one line, with exit code 2, before a folder of a job is made; also for a whole sweep."""

import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["+forward=x"], "forward='x' is no setting"),
        (["trainer=null"], "trainer=null is no choice of trainer: write trainer=default"),
        (["-cn", "predictability", "seed=-1"], "seed=-1 is not an integer"),  # a sweep with the name of a group
        (["name=../x"], "is not a folder inside output: write name=runs"),
        (["trainer.precision=12"], "trainer cannot be built: Precision 12 is invalid"),
        (["-m", "seed=0,-1"], "seed=-1 is not an integer in [0, 4294967295]: write 0 (in the job seed=-1)"),
        (["-m", "sparsity=dense,rigl", "+saliency.foo=1"], "saliency.foo=1 is no setting"),
        (["-cn", "quick", "controls=maybe"], "write controls=False or controls=True"),
    ],
)
def test_a_wrong_setting_is_one_line_before_anything_is_trained(command, tmp_path, arguments, message):
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("lightning-sparse: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("model.ckpt"))
    assert not list(tmp_path.rglob("launches.jsonl"))


def test_a_key_of_the_users_own_may_serve_others(command, tmp_path):
    off = [f"{group}=none" for group in ("attack", "saliency", "stability", "transfer", "cost")]
    done = command("-m", "seed=0", "+short=1", "trainer.max_epochs=${short}", *off, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_other_sweepers_fail_in_the_job_that_is_wrong(command, tiny, tmp_path):
    off = [f"{group}=none" for group in ("attack", "saliency", "stability", "transfer", "cost")]
    sweep = ["-m", "hydra/sweeper=basic", "seed=0,-1", *tiny[:2], *off]
    done = command(*sweep, cwd=tmp_path)
    assert done.returncode == 1
    assert "FAILED, SparsityError: seed=-1 is not an integer" in done.stdout
    assert len(list(tmp_path.rglob("model.ckpt"))) == 1


@pytest.mark.parametrize("arguments", [["seed=1"], ["-m", "seed=0,1"]], ids=["a job", "a sweep"])
def test_a_file_in_the_place_of_the_folder_is_one_line(command, tmp_path, arguments):
    (tmp_path / "outputs").write_text("")
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot be written to (Not a directory): write output=/a/folder/of/yours" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_setting_that_is_not_there_is_named_also_beside_commas(command, tmp_path):
    done = command("-cn", "predictability", "sparsity=dense,static", "data.root=/x", cwd=tmp_path)
    assert done.returncode != 0
    assert "Could not override 'data.root'" in done.stderr
    assert "Ambiguous" not in done.stderr
