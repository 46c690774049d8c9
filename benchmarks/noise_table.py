"""Noise on MNIST by k-winners and by optimizer: the table of Ahmad & Scheinkman 2019 has both changed at once.

    LIGHTNING_SPARSE_DATA=../shared/data python benchmarks/noise_table.py --images 12000 --epochs 3

Theirs trains dense networks with momentum 0.9 and sparse ones with momentum 0. Here each is trained with each optimizer.
The noise is theirs: at each of eleven levels, 0, 0.05, ... 0.5, that share of an image's pixels, drawn at random, becomes
0.1307 + 2 * 0.3081; the score is how many images are right in all, scaled to the 110,000 of ten thousand test images.
Prints one line for each training, and a table for docs/ephemeral.md.
"""

import argparse
import logging
import os
import warnings
from statistics import mean, stdev

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_sparse import ActivationSparsity
from lightning_sparse.data import ImageData
from lightning_sparse.models import lenet_300_100

VALUE = 0.1307 + 2 * 0.3081
LEVELS = [level / 20 for level in range(11)]
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # of so many seeds, two-sided
ACTIVATIONS = {"dense": None, "k-winners 0.1": 1.5, "k-winners 0.1, no boost": 0.0}
OPTIMIZERS = {
    "lr 0.05, momentum 0.9": (0.05, 0.9),
    "lr 0.05, momentum 0": (0.05, 0.0),
    "lr 0.5, momentum 0": (0.5, 0.0),
}


class Net(LightningModule):
    """LeNet-300-100 and an optimizer."""

    def __init__(self, lr, momentum):
        super().__init__()
        self.net, self.lr, self.momentum = lenet_300_100((1, 28, 28), 10), lr, momentum

    def forward(self, images):
        """Give logits of normalised images."""
        return self.net(images)

    def training_step(self, batch, batch_idx):
        """Cross-entropy of pixels."""
        return F.cross_entropy(self((batch[0] - 0.1307) / 0.3081), batch[1])

    def configure_optimizers(self):
        """SGD, by less in each epoch, as theirs."""
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr, momentum=self.momentum)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)]


def noisy(images, level, generator):
    """Exactly this share of each image's pixels, drawn at random, gets the value."""
    flat = images.flatten(1).clone()
    order = torch.rand(flat.shape, generator=generator).argsort(dim=1)
    return flat.scatter(1, order[:, : round(level * flat.shape[1])], VALUE).view_as(images)


def right(model, images, labels):
    with torch.no_grad():
        return float((model((images - 0.1307) / 0.3081).argmax(1) == labels).float().mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("images", 12000), ("test-images", 2000), ("epochs", 3), ("seeds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    folder = os.environ["LIGHTNING_SPARSE_DATA"]
    data = ImageData("mnist", root=folder, shape=[1, 28, 28], classes=10, mean=[0.1307], std=[0.3081])
    data.setup()
    train, (images, labels) = data.split("train", asked.images), data.split("test", asked.test_images)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    table = {}
    for seed in range(asked.seeds):
        for optimizer, (lr, momentum) in OPTIMIZERS.items():
            for name, boost in ACTIVATIONS.items():
                seed_everything(seed, verbose=False)
                model = Net(lr, momentum)
                callbacks = [] if boost is None else [ActivationSparsity(0.1, boost=boost)]
                trainer = Trainer(max_epochs=asked.epochs, accelerator="cpu", callbacks=callbacks, **quiet)
                trainer.fit(model, DataLoader(TensorDataset(*train), batch_size=64, shuffle=True))
                generator = torch.Generator().manual_seed(seed)
                shares = [right(model.eval(), noisy(images, level, generator), labels) for level in LEVELS]
                found = (100 * shares[0], 110_000 * mean(shares))
                print(f"seed {seed}, {optimizer}, {name}: {found[0]:.2f} %, {found[1]:,.0f}", flush=True)
                table.setdefault((optimizer, name), []).append(found)
    print(f"\n{asked.seeds} seeds, {asked.images} images, {asked.epochs} epochs, {asked.test_images} test images")
    print("| optimizer | activations | test, % | noise score, of 110,000 |\n|---|---|---|---|")
    for (optimizer, name), rows in table.items():
        half = [T_95[len(rows)] * stdev(column) / len(rows) ** 0.5 for column in zip(*rows, strict=True)]
        test, score = (mean(column) for column in zip(*rows, strict=True))
        print(f"| {optimizer} | {name} | {test:.2f} ± {half[0]:.2f} | {score:,.0f} ± {half[1]:,.0f} |")


if __name__ == "__main__":
    main()
