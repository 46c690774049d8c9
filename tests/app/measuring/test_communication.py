"""A sweep whose jobs train with GradientCompression has a row of what they sent."""

import pytest

from lightning_sparse.app.measuring.communication import COMMUNICATION
from lightning_sparse.results import records

NOTHING = [f"{group}=none" for group in ("attack", "saliency", "stability", "transfer", "cost", "logger")]
TWO = ["trainer.accelerator=cpu", "trainer.devices=2", "+trainer.strategy=ddp_spawn", "trainer.max_epochs=1"]
SENDS = "+callbacks.communication._target_=lightning_sparse.GradientCompression"


def test_the_bytes_of_both_processes_are_a_row_and_on_the_page(command, tmp_path):
    few = ["+trainer.limit_train_batches=3", "sparsity=dense", "seed=0"]
    done = command("-m", *NOTHING, *TWO, *few, SENDS, "+callbacks.communication.density=0.01", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "outputs" / "runs"
    (job,) = folder.glob("dense-*")
    (row,) = [row for row in records.read(job / "records.jsonl") if row.metric == "communication_share"]
    # A hundredth of 64 x 300, 300 x 100 and 100 x 10 weights at eight bytes each, and 410 biases at four.
    sent, whole = 8 * (192 + 300 + 10) + 4 * 410, 4 * (64 * 300 + 300 * 100 + 100 * 10 + 410)
    assert row.value == pytest.approx(sent / whole)
    assert row.detail == f"{2 * 3 * sent} of {2 * 3 * whole} bytes, 2 processes"
    assert "gradients sent, %" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("callbacks", "asked"),
    [
        ({"any": {"_target_": "lightning_sparse.GradientCompression"}}, {}),
        ({"monitor": {"_target_": "lightning_sparse.SparsityMonitor"}, "gone": None}, None),
        (None, None),
    ],
)
def test_only_a_training_with_the_callback_is_asked(callbacks, asked):
    assert COMMUNICATION.settings({"callbacks": callbacks}) == asked
