"""Train and measure on a CPU and on a device that is none, and say as JSON whether both find the same."""

import copy
import json
import logging
import sys
import warnings

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn

import lightning_sparse as ls
import other_device
import settings
from lightning_sparse import measure
from lightning_sparse.models import small_cnn

CALLBACKS = {
    "gradual": lambda: ls.GradualPruning(0.9),
    "brain development": lambda: ls.BrainDevelopment(0.9),
    "ERK": lambda: ls.Static(0.9, allocation="erk"),
    "SNIP": lambda: ls.SNIP(0.9),
    "GraSP": lambda: ls.GraSP(0.9),
    "SynFlow": lambda: ls.SynFlow(0.9),
    "SET": lambda: ls.SET(0.9, every=4),
    "RigL": lambda: ls.RigL(0.9, every=4),
    "SNFS": lambda: ls.SNFS(0.9, every=4),
    "GraNet": lambda: ls.GraNet(0.9, every=4),
    "AC/DC": lambda: ls.ACDC(0.9),
    "lottery ticket": lambda: ls.LotteryTicket(0.9),
    "Fisher": lambda: ls.GradualPruning(0.9, criterion="fisher"),
    "movement": lambda: ls.GradualPruning(0.9, criterion="movement"),
    "channels": lambda: ls.GradualPruning(0.5, granularity="channels"),
    "tied channels": lambda: ls.GradualPruning(0.5, granularity="tied_channels"),
    "blocks": lambda: ls.GradualPruning(0.5, granularity="2x2"),
    "sparsity monitor": lambda: ls.SparsityMonitor(),
    "activations": lambda: ls.ActivationSparsity(0.1),
    "sparse gradients": lambda: ls.SparseGradients(10),
    "shared weights": lambda: ls.Share(4),
    "factors": lambda: ls.Factorise(4),
    "predicted weights": lambda: ls.PredictWeights(0.5),
}


class Anywhere(CPUAccelerator):
    """Takes the module wherever it is told to."""

    def setup_device(self, device):
        pass


def fitted(make, there):
    """Weights after an epoch of ten steps, on the device asked for."""
    torch.manual_seed(0)
    seen = set()

    class Module(settings.Module):
        def training_step(self, batch, batch_idx):
            seen.update(weight.device.type for weight in self.parameters())
            return super().training_step(batch, batch_idx)

    module = Module()
    strategy = SingleDeviceStrategy(other_device.DEVICE if there else torch.device("cpu"), accelerator=Anywhere())
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    Trainer(max_epochs=1, callbacks=[make()], strategy=strategy, devices=1, **quiet).fit(module, settings.batches())
    assert seen == {other_device.DEVICE.type if there else "cpu"}, seen
    return [_plain(weight.detach().cpu()) for weight in module.parameters()]


def same_weights(some, others):
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


def _plain(tensor):
    return getattr(tensor, "here", tensor)


IMAGES, LABELS = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 10
DATA = IMAGES, LABELS
MEASURES = {
    "accuracy": lambda model: measure.measure_accuracy(model, DATA),
    "robustness": lambda model: measure.measure_robustness(
        model, DATA, eps=[0.05], tier="monitor", attacks=["pgd", "apgd-dlr"]
    ),
    "robustness in L2": lambda model: measure.measure_robustness(model, DATA, eps=[0.5], norm="L2", tier="monitor"),
    "transfer": lambda model: measure.measure_transfer(
        {"itself": measure.craft(model, DATA, eps=0.1)}, model, DATA, eps=0.1
    ),
    "Hessian": lambda model: measure.measure_hessian(model, DATA),
    "Jacobian": lambda model: measure.measure_jacobian(model, DATA),
    "corruptions": lambda model: measure.measure_corruptions(model, DATA),
    "shifts": lambda model: measure.measure_shift_consistency(model, DATA),
    "saliency": lambda model: measure.measure_saliency(model, (IMAGES[:4], LABELS[:4])),
    "description length": lambda model: measure.measure_description_length(model, DATA),
    "biases": lambda model: measure.measure_biases(model, DATA),
    "activity": lambda model: measure.measure_activations(model, DATA),
    "sensitivity of layers": lambda model: measure.measure_sensitivity_of_layers(model, DATA),
    "predictability": lambda model: measure.measure_predictability(model, DATA, train_data=DATA),
}


def trained():
    torch.manual_seed(0)
    net = small_cnn((1, 8, 8), 10)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(IMAGES), LABELS).backward()
        optimizer.step()
    return net.eval()


def values(measured):
    return [(record.metric, record.attack, record.eps, repr(record.value)) for record in measured.records]


def mixed():
    """Whether tensors of both devices may be computed with."""
    try:
        torch.ones(2).to(other_device.DEVICE) + torch.ones(2)
    except RuntimeError as error:
        return str(error)
    return "allowed"


def tried(compare):
    try:
        return "same" if compare() else "different"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main():
    """Print what was found for each."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    library = other_device.register()
    found = {"mixed": mixed()}
    for name, make in CALLBACKS.items():
        found[name] = tried(lambda make=make: same_weights(fitted(make, there=False), fitted(make, there=True)))
    net = trained()
    there = copy.deepcopy(net).to(other_device.DEVICE)
    for name, run in MEASURES.items():
        found[name] = tried(lambda run=run: values(run(net)) == values(run(there)))
    del library
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
