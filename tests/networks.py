"""Small networks of the kinds that people train; each learns the digits and checks its own dead weights."""

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

import settings
from lightning_sparse import SparseTraining


class Watched(LightningModule):
    """A module that checks at every step that every masked weight is exactly zero."""

    def __init__(self, lr=0.01):
        super().__init__()
        torch.manual_seed(0)
        self.lr = lr
        self.losses = []
        self.dead_seen = {"training": 0, "validation": 0}

    def look(self, stage):
        """Called where the forward pass is about to read the weights; the sanity check comes before there are masks."""
        if self.trainer.sanity_checking:
            return
        for callback in self.trainer.callbacks:
            if isinstance(callback, SparseTraining):
                assert settings.dead_are_zero(self, callback.masks), f"a dead weight is not zero in a {stage} step"
                self.dead_seen[stage] = max(self.dead_seen[stage], callback.masks.total - callback.masks.living)

    def training_step(self, batch, batch_idx):
        self.look("training")
        loss = self.loss(batch)
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, batch_idx):
        self.look("validation")
        self.log("validation_loss", self.loss(batch))

    def loss(self, batch):
        images, labels = batch
        return cross_entropy(self(images), labels)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


class Transformer(Watched):
    """A sequence of eight rows, two encoder layers, mean over the positions."""

    def __init__(self, width=16):
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(0.02 * torch.randn(8, width))
        layer = nn.TransformerEncoderLayer(width, nhead=2, dim_feedforward=2 * width, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2)
        self.head = nn.Linear(width, 10)

    def forward(self, images):
        rows = images.view(-1, 8, 8)
        return self.head(self.encoder(self.embed(rows) + self.position).mean(1))


class Lstm(Watched):
    """A sequence of eight rows, two layers, the last output."""

    def __init__(self, width=24):
        super().__init__(lr=0.02)
        self.lstm = nn.LSTM(8, width, num_layers=2, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, images):
        return self.head(self.lstm(images.view(-1, 8, 8))[0][:, -1])


class Gru(Watched):
    """A sequence of eight rows read from both ends."""

    def __init__(self, width=16):
        super().__init__(lr=0.02)
        self.gru = nn.GRU(8, width, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, images):
        return self.head(self.gru(images.view(-1, 8, 8))[0].mean(1))


class UNet(Watched):
    """Which pixels of a noisy digit are ink: two levels, a skip connection, BatchNorm, a learned upsampling."""

    def __init__(self, width=8):
        super().__init__(lr=0.02)
        self.down = self.block(1, width)
        self.bottom = self.block(width, 2 * width)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.merge = self.block(2 * width, width)
        self.head = nn.Conv2d(width, 1, 1)

    @staticmethod
    def block(inputs, outputs):
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, images):
        fine = self.down(images)
        coarse = self.bottom(nn.functional.max_pool2d(fine, 2))
        return self.head(self.merge(torch.cat([fine, self.up(coarse)], 1)))

    def loss(self, batch):
        images = batch[0].view(-1, 1, 8, 8)
        ink = (images > 0.5).float()
        return binary_cross_entropy_with_logits(self(images + 0.2 * torch.randn_like(images)), ink)


class Tokens(Watched):
    """An embedding of the 17 grey values that a pixel can have, and a linear layer."""

    def __init__(self, width=4, sparse=False):
        super().__init__(lr=0.02)
        self.embedding = nn.Embedding(17, width, sparse=sparse)
        self.head = nn.Linear(64 * width, 10)

    def forward(self, images):
        return self.head(self.embedding((16 * images).long()).flatten(1))

    def configure_optimizers(self):
        # Adam takes no sparse gradients.
        return torch.optim.SGD(self.parameters(), lr=0.5) if self.embedding.sparse else super().configure_optimizers()


class Gan(Watched):
    """A DCGAN with least-squares losses, trained by hand with two optimizers; ``raw`` steps torch's own optimizers."""

    def __init__(self, critic_steps=1, raw=False, width=8):
        super().__init__()
        self.automatic_optimization = False
        self.critic_steps = critic_steps
        self.raw = raw
        self.generator = nn.Sequential()
        self.generator.add_module("project", nn.Linear(6, 4 * 2 * width))
        self.generator.add_module("grid", nn.Unflatten(1, (2 * width, 2, 2)))
        self.generator.add_module("up1", nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False))
        self.generator.add_module("norm", nn.BatchNorm2d(width))
        self.generator.add_module("relu", nn.ReLU())
        self.generator.add_module("up2", nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1))
        self.generator.add_module("sigmoid", nn.Sigmoid())
        self.discriminator = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(16 * width, 1)
        )
        self.generator_steps = 0

    def training_step(self, batch, batch_idx):
        self.look("training")
        real = batch[0].view(-1, 1, 8, 8)
        noise = torch.randn(len(real), 6, device=self.device)
        critic, generator = self.optimizers()
        for _ in range(self.critic_steps):
            wrong = (self.discriminator(real) - 1).square() + self.discriminator(
                self.generator(noise).detach()
            ).square()
            self.descend(critic, wrong.mean())
        fake = self.generator(noise)
        self.losses.append((fake - real).mean(0).square().mean().item())  # the losses of a GAN need not fall: this must
        self.descend(generator, (self.discriminator(fake) - 1).square().mean())
        self.generator_steps += 1

    def validation_step(self, batch, batch_idx):
        self.look("validation")
        assert self.generator(torch.randn(4, 6, device=self.device)).isfinite().all()

    def descend(self, optimizer, loss):
        optimizer.zero_grad()
        self.manual_backward(loss)
        (optimizer.optimizer if self.raw else optimizer).step()

    def configure_optimizers(self):
        return [
            torch.optim.Adam(self.discriminator.parameters(), lr=0.005, betas=(0.5, 0.999)),
            torch.optim.Adam(self.generator.parameters(), lr=0.01, betas=(0.5, 0.999)),
        ]
