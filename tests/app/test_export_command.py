"""``lightning-sparse-export``: the trained network of a job as a packed file, from its folder or a checkpoint in it."""

import json
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import torch

from lightning_sparse import load_masks
from lightning_sparse.app.build import stored_model
from lightning_sparse.app.export_command import main
from lightning_sparse.export import load_packed, packed_table
from lightning_sparse.results.jobs import read_job

SWEEP = [
    "--multirun", "sparsity=dense,gradual_pruning", "model=lenet_300_100", "trainer.max_epochs=2", "logger=none",
    "attack=none", "saliency=none", "stability=none", "transfer=none", "cost=none", "name=s",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = command(*SWEEP, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "outputs/s"


@pytest.fixture
def sweep(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "s", ignore=shutil.ignore_patterns("figures", "report.html"))
    return tmp_path / "s"


def one(folder, pattern):
    (found,) = folder.glob(pattern)
    return found


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said.startswith("lightning-sparse-export: ")
    assert said.count("\n") == 1
    return said


def test_a_jobs_network_is_packed_beside_it(sweep, capsys):
    folder = one(sweep, "gradual_pruning*")
    main([str(folder)])
    said = capsys.readouterr().out
    path = folder / "network.packed"
    assert said.splitlines()[-1] == f"files: {folder}"
    assert re.search(rf"packed, float32 +{path.stat().st_size:,} +0\.\d{{4}}  {re.escape(str(path))}", said)
    assert re.search(r"dense float32 +202,448 +1\.0000\n", said)  # 50,200 weights, 410 biases, mean and std
    job = read_job(folder / "job.json")
    model, again = stored_model(job), stored_model(job)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    masks, trained = load_packed(path, again), load_masks(torch.load(job.checkpoint, weights_only=False))
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
    assert masks.keys() == trained.keys()
    assert all(torch.equal(masks[name], trained[name]) for name in masks)


def test_another_checkpoint_another_folder_and_rounded_values(sweep, tmp_path, capsys):
    folder = one(sweep, "gradual_pruning*")
    shutil.copy(folder / "model.ckpt", folder / "best.ckpt")
    main([str(folder / "best.ckpt"), "--values", "int4", "--to", str(tmp_path / "new")])
    assert capsys.readouterr().out.endswith(f"files: {tmp_path / 'new'}\n")
    assert "int4" in packed_table(tmp_path / "new" / "network.packed")
    assert not (folder / "network.packed").exists()


def test_a_dense_network_has_no_masks(sweep):
    folder = one(sweep, "dense*")
    main([str(folder)])
    assert load_packed(folder / "network.packed", stored_model(read_job(folder / "job.json"))).sparsity == 0


def test_what_is_wrong_is_one_line(sweep, tmp_path, monkeypatch, capsys):
    folder = one(sweep, "gradual_pruning*")
    said = refused([sweep], capsys)
    assert "is no job's folder and no checkpoint in one" in said
    advised = re.search(r"write lightning-sparse-export (\S+),", said)[1]
    assert "does not exist: give a job's folder" in refused([tmp_path / "nothing"], capsys)
    (tmp_path / "last.ckpt").write_bytes(b"")
    assert "is no job's folder and no checkpoint in one" in refused([tmp_path / "last.ckpt"], capsys)
    assert "--values='bf16' does not exist: did you mean 'bfloat16'?" in refused([folder, "--values", "bf16"], capsys)
    assert "cannot be written to" in refused([folder, "--to", tmp_path / "last.ckpt"], capsys)
    assert not any(sweep.rglob("*.packed"))
    main([advised])
    (folder / "model.ckpt").write_bytes((folder / "model.ckpt").read_bytes()[:1000])
    assert "is no checkpoint, or truncated" in refused([folder], capsys)
    (folder / "model.ckpt").unlink()
    assert "does not exist (its training has not ended): launch the job again" in refused([folder], capsys)


def test_a_network_that_cannot_be_built_again_is_named(sweep, capsys):
    folder = one(sweep, "gradual_pruning*")
    config = folder / ".hydra" / "config.yaml"
    before = config.read_text()
    config.write_text(before.replace("_target_: lightning_sparse.models.lenet_300_100", "_target_: my.own.network"))
    assert "my.own.network" in refused([folder], capsys)
    config.write_text(before.replace("lenet_300_100", "lenet5").replace("- 8\n  - 8", "- 28\n  - 28"))
    assert "its network cannot be built again from" in refused([folder], capsys)
    (folder / "job.json").write_text(json.dumps([1]))
    assert "is no job's folder" in refused([folder], capsys)


def test_help_is_fast():
    slow = "{'pandas', 'matplotlib', 'torch', 'hydra', 'constriction'}"
    code = f"import sys, lightning_sparse.app.export_command; print(sorted({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_is_installed(root):
    scripts = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["lightning-sparse-export"] == "lightning_sparse.app.export_command:main"


def test_all_forms_are_written_checked_and_timed(sweep, capsys):
    folder = one(sweep, "gradual_pruning*")
    main([str(folder), "--shrink", "--onnx", "--time", "--values", "bfloat16"])
    said = capsys.readouterr().out
    for what, name in (("shrunk and packed, bfloat16", "shrunk.packed"), ("ONNX, dense", "network.onnx")):
        assert re.search(rf"{what} +{(folder / name).stat().st_size:,} ", said)
    assert re.search(r"(?m)^(dense|shrunk|sparse|shrunk and sparse) +[\d.]+ +[\d.]+  chosen$", said)
    assert "dense again (noise)" in said
    job = read_job(folder / "job.json")
    trained, small = stored_model(job), stored_model(job)
    load_packed(folder / "shrunk.packed", small)
    images = torch.rand(5, 1, 8, 8)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in trained.parameters())
    trained.eval(), small.eval()
    assert torch.allclose(trained(images), small(images), atol=0.05)  # values of eight bits
