"""The settings of W&B reach the runs of the jobs and of the sweep, and the shell's WANDB_MODE counts."""

import json

import pytest

from offline_runs import started, told_by

OFF = [f"{group}=none" for group in ("attack", "saliency", "stability", "transfer", "cost")]


def test_team_tags_and_notes_are_in_every_run_of_a_sweep(command, tmp_path):
    wandb = ["logger=wandb", "logger.entity=our-team", "logger.tags=[paper]", "logger.notes=why"]
    done = command("-m", "seed=0", *wandb, *OFF, "trainer.max_epochs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = list((tmp_path / "outputs" / "runs" / "wandb").glob("offline-run-*"))
    assert len(runs) == 2  # of the job and of the sweep
    for run in runs:
        lines = told_by("leet", "inspect", "--json", str(run)).splitlines()
        about = started([json.loads(line) for line in lines])
        assert (about["entity"], about["notes"]) == ("our-team", "why")
        assert "paper" in about["tags"]


@pytest.mark.parametrize(("arguments", "written"), [([], 0), (["logger.mode=offline"], 1)])
def test_wandb_mode_of_the_shell_counts_or_is_said_not_to(command, tmp_path, monkeypatch, arguments, written):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    done = command("logger=wandb", *arguments, *OFF, "trainer.max_epochs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.rglob("offline-run-*"))) == written
    sentence = "lightning-sparse: logger.mode=offline counts, and WANDB_MODE=disabled of the shell does not"
    assert done.stderr.count(sentence) == written
