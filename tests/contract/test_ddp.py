"""Two real processes on the CPU: by script (one pair runs every method), and by spawn."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import settings
from lightning_sparse import BrainDevelopment, GradualPruning

SCRIPT = Path(settings.__file__).with_name("ddp_script.py")
CASES = [*settings.METHODS, "random-drop", "accumulated", "clipped", "lbfgs"]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, SCRIPT, folder], cwd=folder, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("case", CASES)
def test_masks_and_weights_are_the_same_on_both_ranks_at_every_update(case, ranks):
    first, second = (rank[case] for rank in ranks)
    assert first == second
    assert len(set(first["checksums"])) == len(first["checksums"]) >= 1
    assert first["clock"] == (6 if case == "accumulated" else 10)  # 10 batches, shared by two ranks, for 2 epochs


def test_a_score_that_differs_between_ranks_stops_both_and_says_which(ranks):
    for rank in ranks:
        assert "the masks of rank 1 differ from those of rank 0" in rank["planted"]
        assert "grow='__main__.by_rank'" in rank["planted"]


@pytest.mark.parametrize("method", [GradualPruning, BrainDevelopment])
def test_after_a_spawned_fit_masks_and_history_are_in_the_main_process(method, loader, make_trainer, tmp_path):
    model, callback = settings.Module(), method(0.9)
    trainer = make_trainer(callback, devices=2, strategy="ddp_spawn", max_epochs=2)
    trainer.fit(model, loader)
    assert settings.exact(callback.masks, 0.9)
    assert settings.dead_are_zero(model, callback.masks)
    assert [update.step for update in callback.history][-1] <= 10
    assert callback.history[-1].sparsity == callback.sparsity
    trainer.save_checkpoint(tmp_path / "end.ckpt", weights_only=False)
    # The checkpoint saved at home holds them too, and another process goes on from it.
    resumed = method(0.9)
    again = make_trainer(resumed, max_epochs=2)
    again.validate(settings.Module(), loader, ckpt_path=tmp_path / "end.ckpt", verbose=False, **settings.SAFE)
    assert resumed.masks.checksum() == callback.masks.checksum()
