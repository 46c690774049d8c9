"""The core needs torch and lightning, and none of the extras."""

import subprocess
import sys

SCRIPT = """
import importlib.abc, sys

EXTRAS = {"hydra", "omegaconf", "wandb", "torchattacks", "captum", "scipy", "sklearn", "torchvision", "pandas",
          "matplotlib", "filelock"}

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        # torch and lightning look for some of these themselves, and do without; this library must not ask.
        if name.partition(".")[0] in EXTRAS:
            caller = sys._getframe()
            while caller:
                module = caller.f_globals.get("__name__", "")
                if module.startswith("lightning_sparse"):
                    raise AssertionError(f"{module} imports {name}")
                if module.startswith(("torch", "lightning.", "lightning_fabric")):
                    break
                caller = caller.f_back
        return None

sys.meta_path.insert(0, Blocked())
import lightning_sparse
for name in lightning_sparse.__all__:
    getattr(lightning_sparse, name)
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
callback = lightning_sparse.BrainDevelopment(0.9)
Trainer(max_epochs=1, accelerator="cpu", barebones=True, callbacks=[callback]).fit(BoringModel())
print(callback.sparsity)
"""


def test_the_callbacks_need_torch_and_lightning_only():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "0.90625"
