"""Dead channels removed: the speed of what is left beside torch-pruning's own pruner at the same widths, and of removing."""

from __future__ import annotations

import copy
import warnings

import torch
import torch_pruning
from harness import Table, milliseconds, race, ratio
from torch import nn

from lightning_sparse.anatomy.channel_groups import channel_groups
from lightning_sparse.export import shrink
from lightning_sparse.models.networks import resnet18, resnet20

warnings.filterwarnings("ignore", module="torch_pruning")
SHAPE = (3, 32, 32)


def theirs(dense: nn.Module, images: torch.Tensor, share: float) -> nn.Module:
    """A copy with this share of each layer's channels removed by torch-pruning."""
    net = copy.deepcopy(dense)
    head = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
    importance = torch_pruning.importance.MagnitudeImportance(p=1)
    torch_pruning.pruner.BasePruner(net, images, importance, pruning_ratio=share, ignored_layers=[head]).step()
    return net.eval()


def dead(dense: nn.Module, images: torch.Tensor, share: float) -> nn.Module:
    """A copy with this share of each group's channels at zero, with their BatchNorms, and nothing removed."""
    net = copy.deepcopy(dense)
    tensors = dict(net.named_parameters())
    with torch.no_grad():
        for group in channel_groups(net, images):
            if not group.obstacle:
                slots = torch.arange(group.size) < round(share * group.size)
                for member in [*group.having("writes"), *group.having("each")]:
                    for leaf in ("weight", "bias"):
                        if f"{member.name}.{leaf}" in tensors:
                            tensors[f"{member.name}.{leaf}"][member.channels[slots[member.slots]]] = 0
    return net


def widths(net: nn.Module) -> list[torch.Size]:
    """The shapes of all parameters."""
    return [parameter.shape for parameter in net.parameters()]


def compare(name: str, share: float, rounds: int, repeat: int) -> None:
    torch.manual_seed(0)
    make = {"ResNet-18": resnet18, "ResNet-20": resnet20}[name]
    dense, images = make(SHAPE, 10).eval(), torch.randn(16, *SHAPE)
    zeros = dead(dense, images, share)
    ours, peer = shrink(zeros, images).model, theirs(dense, images, share)
    assert widths(ours) == widths(peer)

    def forward(net: nn.Module):
        def run() -> None:
            with torch.inference_mode():
                net(images)

        return lambda: run

    nets = {"peer": peer, "peer again": copy.deepcopy(peer), "ours": ours, "dense": dense, "zeros": zeros}
    times = race({kind: forward(net) for kind, net in nets.items()}, rounds, repeat)
    table = Table(
        f"{name}, {share:.0%} of all channels removed, forward at batch 16: ratio to torch-pruning's at the same widths "
        f"({milliseconds(times, 'peer'):.3g} ms)",
        ratio(times, "peer again", "peer"),
    )
    table.add("`shrink`", ratio(times, "ours", "peer"), 1.05)
    table.add("dense", ratio(times, "dense", "peer"))
    table.add("dense, with the channels at zero", ratio(times, "zeros", "peer"))
    table.show()

    work = {
        "peer": lambda: lambda: theirs(dense, images, share),
        "peer again": lambda: lambda: theirs(dense, images, share),
        "ours": lambda: lambda: shrink(zeros, images),
    }
    times = race(work, rounds=7)
    table = Table(
        f"{name}, removing {share:.0%} of all channels: ratio to torch-pruning's ({milliseconds(times, 'peer'):.3g} ms)",
        ratio(times, "peer again", "peer"),
    )
    table.add("`shrink`, which compares the outputs on three inputs too", ratio(times, "ours", "peer"))
    table.show()


if __name__ == "__main__":
    for share in (0.5, 0.75):
        compare("ResNet-18", share, rounds=40, repeat=1)
        compare("ResNet-20", share, rounds=40, repeat=3)
