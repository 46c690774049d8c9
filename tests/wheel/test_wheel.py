"""What ships: the wheel, installed in a fresh environment outside the checkout, and used from there."""

import json
import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.wheel


def run(*command, cwd):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_DATA_DIR": str(cwd), "WANDB_CACHE_DIR": str(cwd)}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of the tree, so that no left-over build folder leaks into it."""
    source = tmp_path_factory.mktemp("source")
    for name in ("lightning_sparse", "hydra_plugins", "conf", "sweeps", "pyproject.toml", "README.md", "LICENSE"):
        origin = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        _ = shutil.copytree(origin, source / name, ignore=ignore) if origin.is_dir() else shutil.copy(origin, source)
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        source,
        source,
        cwd=source,
    )
    return next(source.glob("*.whl"))


@pytest.fixture(scope="module")
def fresh(wheel, tmp_path_factory):
    """An environment that has the wheel, and this one's dependencies but not its editable install."""
    where = tmp_path_factory.mktemp("fresh")
    venv.create(where / "env", with_pip=False)
    library = next((where / "env" / "lib").glob("python*")) / "site-packages"
    # As a plain path: the .pth files in there, which make the checkout importable, are not read again.
    (library / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", library, wheel, cwd=where)
    return where / "env" / "bin" / "python", where


def test_the_wheel_holds_configs_and_type_marker_and_nothing_else_of_the_checkout(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for kind in ("conf", "sweeps"):
        ours = {str(path.relative_to(ROOT)) for path in (ROOT / kind).rglob("*.yaml")}
        assert {
            name.removeprefix("lightning_sparse/") for name in names if name.endswith(".yaml") and f"/{kind}/" in name
        } == ours
    assert "lightning_sparse/py.typed" in names
    assert "lightning_sparse/report/page.html" in names
    assert not [name for name in names if name.startswith(("tests/", "conf/", "sweeps/", "benchmarks/"))]


def test_it_is_the_wheel_that_is_imported(fresh):
    python, cwd = fresh
    where = run(python, "-c", "import lightning_sparse; print(lightning_sparse.__file__)", cwd=cwd).strip()
    assert where.startswith(str(cwd))


def test_importing_costs_nothing_and_loads_nothing(fresh):
    python, cwd = fresh
    script = (
        "import sys, lightning_sparse, lightning_sparse.measure, lightning_sparse.report, json\n"
        "print(json.dumps([m for m in ('torch', 'lightning', 'hydra', 'wandb', 'pandas') if m in sys.modules]))"
    )
    assert json.loads(run(python, "-c", script, cwd=cwd)) == []


def test_a_named_sweep_runs_from_the_wheel(fresh):
    python, cwd = fresh
    small = ["sparsity=dense,gradual_pruning", "sparsity.final_sparsity=0.9", "seed=0", "trainer.max_epochs=1"]
    tiny = ["model=lenet_300_100", "attack.images=40", "attack.steps=2", "saliency.images=10", "logger=none"]
    tiny += [
        "stability.images=20",
        "stability.hessian_images=20",
        "transfer.images=16",
        "cost.images=40",
        "vog.images=20",
    ]
    printed = run(python, "-m", "lightning_sparse", "-cn", "quick", *small, *tiny, cwd=cwd)
    assert "2 jobs done" in printed
    assert (cwd / "outputs" / "quick" / "report.html").exists()


def test_another_project_composes_our_methods(fresh):
    python, cwd = fresh
    project = cwd / "project"
    (project / "conf").mkdir(parents=True)
    (project / "conf" / "train.yaml").write_text(
        "defaults:\n  - _self_\n  - sparsity: brain_development\nepochs: 3\nhydra:\n  searchpath: [pkg://lightning_sparse.conf]\n"
    )
    (project / "train.py").write_text(
        "import hydra\n"
        "from hydra.utils import instantiate\n"
        "@hydra.main(version_base='1.3', config_path='conf', config_name='train')\n"
        "def main(cfg):\n"
        "    callback = instantiate(cfg.sparsity)\n"
        "    print(type(callback).__name__, callback.recipe.sparsity.final, callback.recipe.seed)\n"
        "main()\n"
    )
    printed = run(python, "train.py", "sparsity.final_sparsity=0.8", cwd=project)
    assert printed.strip() == "BrainDevelopment 0.8 0"
    printed = run(python, "train.py", "sparsity=gradual_pruning", "+seed=7", cwd=project)
    assert printed.strip() == "GradualPruning 0.9 7"


def test_texts_and_their_licence_ship_and_the_sweep_of_texts_runs_offline(fresh):
    python, cwd = fresh
    few = "data.texts=200 data.words=500 trainer.max_epochs=1 attack.images=20 saliency.images=20 stability=none cost=none"
    levels = "model=bag_of_words sparsity.final_sparsity=0.5 seed=0 name=texts logger=none"
    run(python, "-m", "lightning_sparse", "-cn", "text", *few.split(), *levels.split(), cwd=cwd)
    folder = cwd / "outputs" / "texts"
    assert len(list(folder.glob("*/model.ckpt"))) == 2
    assert (folder / "report.html").exists()
    library = Path(run(python, "-c", "import lightning_sparse.data as d; print(d.__file__)", cwd=cwd).strip()).parent
    assert "WordNet" in (library / "wordnet" / "LICENSE").read_text()
