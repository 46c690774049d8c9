"""A sparse network that FSDP2 shards over two processes: masks are drawn before, and held on every shard.

python examples/sharded.py

The engine ranks whole weights, and refuses a shard of them. So it draws masks while every process has all of it, and a
hook of three lines keeps their weights at zero. OneShot(0.8, at=0) would do as well on a trained network.
"""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from sklearn.datasets import load_digits
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor
from torch.nn.functional import cross_entropy

from lightning_sparse import Static, attach

processes = 2
sparsity = 0.8
steps = 300


def train(rank: int, address: str) -> None:
    """What each process does; the first one prints what came out."""
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=processes)
    torch.manual_seed(0)  # the same network in every process
    model = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
    engine = attach(torch.optim.SGD(model.parameters(), lr=0.1), model, Static(sparsity))
    masks = {name: mask.clone() for name, mask in engine.masks.items()}
    engine.detach()

    mesh = init_device_mesh("cpu", (processes,))
    for layer in (model[0], model[2], model):
        fully_shard(layer, mesh=mesh)
    weights = dict(model.named_parameters())
    shards = {name: distribute_tensor(mask, mesh, weights[name].placements) for name, mask in masks.items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    @torch.no_grad()
    def hold(*_: object) -> None:
        for name, shard in shards.items():
            weights[name].mul_(shard)

    optimizer.register_step_post_hook(hold)  # after every step of any optimizer

    digits = load_digits()
    images, labels = torch.tensor(digits.images / 16).float().flatten(1), torch.tensor(digits.target)
    mine = torch.arange(rank, 1437, processes)
    order = torch.Generator().manual_seed(rank)
    for _ in range(steps):
        batch = mine[torch.randint(len(mine), (32,), generator=order)]
        optimizer.zero_grad()
        cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
    with torch.no_grad():
        accuracy = float((model(images[1437:]).argmax(1) == labels[1437:]).float().mean())
    whole = {name: weights[name].full_tensor() for name in masks}
    zeros = sum(int((weight == 0).sum()) for weight in whole.values())
    kept = all(torch.equal(weight != 0, masks[name]) for name, weight in whole.items())
    if rank == 0:
        total = sum(mask.numel() for mask in masks.values())
        print(f"accuracy {accuracy:.3f}, {zeros} of {total} weights are zero, those of the masks: {kept}")
    dist.destroy_process_group()


if __name__ == "__main__":
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)  # to find a free port
    address = f"tcp://localhost:{store.port}"
    del store
    mp.spawn(train, args=(address,), nprocs=processes)
