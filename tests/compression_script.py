"""Gradient compression under DDP, as two processes: `python compression_script.py FOLDER`; writes FOLDER/<rank>.json."""

import json
import logging
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Callback
from lightning.pytorch.strategies import DDPStrategy

import settings
from lightning_sparse import SNFS, GradientCompression, GradualPruning, RigL, SparsityError


class Module(settings.Module):
    """Without momentum, so that momentum correction may be in its place."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Gradients(Callback):
    """Notes how many entries each weight's gradient has, and whether ranks can differ in it."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        gradient = pl_module.body[0].weight.grad
        self.seen.append([int(gradient.count_nonzero()), float(gradient.double().abs().sum())])


def fit(*callbacks, model=None, epochs=2, resume=None, **arguments):
    model = model or Module()
    defaults = {"devices": 2, "strategy": "ddp"}
    trainer = settings.quiet(*callbacks, max_epochs=epochs, **(defaults | arguments))
    start = {"ckpt_path": resume, **settings.SAFE} if resume else {}
    trainer.fit(model, settings.batches(), **start)
    return trainer, model


def weights(model):
    return [float(p.detach().double().abs().sum()) for p in model.parameters()]


def refusal(*callbacks, **arguments):
    try:
        fit(*callbacks, **arguments)
    except SparsityError as error:
        return str(error)
    return ""


def ignored(state, bucket):
    raise AssertionError("called")


def main(folder):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    trainer, plain = fit()
    rank, found = trainer.global_rank, {"plain": weights(plain)}
    for name, arguments in {
        "whole": {"density": 1.0},
        "few": {"density": 0.1},
        "forgetful": {"density": 0.1, "memory": False},
        "corrected": {"density": 0.1, "momentum_correction": 0.9},
    }.items():
        callback, watch = GradientCompression(**arguments), Gradients()
        _, model = fit(callback, watch)
        found[name] = {"weights": weights(model), "seen": watch.seen, "share": callback.communication_share}
    for name, make in {"pruned": lambda: GradualPruning(0.8), "rigl": lambda: RigL(0.8, every=4)}.items():
        callback, watch, method = GradientCompression(0.1), Gradients(), make()
        _, model = fit(callback, watch, method)
        residual = callback._compressor.state_dict()["residual"]["body.0.weight"]
        found[name] = {
            "weights": weights(model),
            "seen": watch.seen,
            "masks": method.masks.checksum(),
            "updates": [update.step for update in method.history],
            "dead_remembered": int((residual.view(60, 64)[~method.masks["body.0.weight"]] != 0).sum()),
            "born": sum(update.born for update in method.history),
        }
    found["accumulated"] = weights(fit(GradientCompression(0.1), accumulate_grad_batches=2)[1])
    trainer, _ = fit(GradientCompression(0.1, momentum_correction=0.9), epochs=1)
    trainer.save_checkpoint(Path(folder) / "half.ckpt", weights_only=False)
    resumed = GradientCompression(0.1, momentum_correction=0.9)
    found["resumed"] = weights(fit(resumed, resume=Path(folder) / "half.ckpt")[1])
    found["share_resumed"] = resumed.communication_share
    forgetful = torch.load(Path(folder) / "half.ckpt", weights_only=True)
    found["ranks_remember_their_own"] = forgetful["callbacks"]["GradientCompression"]["memory"]["ranks"]
    found["ranks_remember_their_own"] = [
        float(each["residual"]["body.0.weight"].abs().sum()) for each in found["ranks_remember_their_own"]
    ]
    found["other_density"] = refusal(GradientCompression(0.2), resume=Path(folder) / "half.ckpt")
    found["hook"] = refusal(GradientCompression(0.1), strategy=DDPStrategy(ddp_comm_hook=ignored))
    found["snfs"] = refusal(SNFS(0.8, every=3), GradientCompression())
    found["momentum"] = refusal(GradientCompression(momentum_correction=0.9), model=settings.Module())
    fit(strategy=DDPStrategy(ddp_comm_hook=ignored), epochs=1)  # Lightning does not register it on CPUs
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
