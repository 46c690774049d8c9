"""The README's code runs as written, and what it names exists."""

import re
from pathlib import Path

import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import nn
from torch.utils.data import DataLoader

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.S)


class Module(BoringModel):
    """A module such as a reader of the README would have, large enough to be pruned to 0.95."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(32, 40), nn.ReLU(), nn.Linear(40, 2))


@pytest.mark.filterwarnings("ignore:Starting from v1.9.0, `tensorboardX` has been removed:UserWarning")
def test_the_code_runs_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    names = {
        "torch": torch,
        "module": Module(),
        "loader": DataLoader(torch.randn(64, 32), batch_size=8),
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "batches": [(torch.rand(8, 1, 8, 8), torch.randint(0, 10, (8,))) for _ in range(50)],
        "classifier": model,
        "test_images": torch.rand(20, 1, 8, 8),
        "validation_images": torch.rand(20, 1, 8, 8),
        "validation_labels": torch.randint(0, 10, (20,)),
        "test_labels": torch.randint(0, 10, (20,)),
    }
    for block in BLOCKS:
        exec(block, names)
    total = 32 * 40 + 40 * 2
    assert names["pruning"].masks.total - names["pruning"].masks.living == round(0.9 * total)
    assert names["development"].masks.total - names["development"].masks.living == round(0.95 * total)
    assert names["engine"].sparsity == 0.9
    assert "worst" in capsys.readouterr().out


def test_named_sweeps_and_groups_exist():
    pages = README + (ROOT / "docs" / "sweeps.md").read_text()
    for name in re.findall(r"-cn (\w+)", pages):
        assert (ROOT / "sweeps" / f"{name}.yaml").exists()
    commands = re.sub(r"```python\n.*?```", "", pages, flags=re.S)
    for group, choice in re.findall(r" (data|model|sparsity|attack|logger|compression)=(\w+)", commands):
        assert (ROOT / "conf" / group / f"{choice}.yaml").exists()


def test_every_row_of_the_table_of_modes_has_its_test():
    page = (ROOT / "docs" / "any_trainer.md").read_text()
    proofs = re.findall(r"\(\.\./((?:tests|benchmarks|examples)[\w/.]*)(?:#(\w+))?\)", page)
    assert len([name for _, name in proofs if name]) > 25
    for path, name in proofs:
        assert (ROOT / path).exists(), path
        assert not name or f"def {name}(" in (ROOT / path).read_text(), name
