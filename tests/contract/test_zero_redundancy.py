"""ZeroRedundancyOptimizer, whose inner optimizer trains another share of the weights on each rank."""

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.functional import cross_entropy

import settings
from lightning_sparse import GradualPruning, attach, sparsity_of


def train(rank, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10))
    optimizer = ZeroRedundancyOptimizer(net.parameters(), torch.optim.Adam, lr=1e-2)
    engine = attach(optimizer, net, GradualPruning(0.9), total_steps=16)
    features, labels = (half.chunk(2)[rank] for half in settings.digits()[:])
    for _ in range(16):
        optimizer.zero_grad()
        cross_entropy(net(features), labels).backward()
        for parameter in net.parameters():
            distributed.all_reduce(parameter.grad)
        optimizer.step()
    torch.save((engine.clock, engine.sparsity, sparsity_of(net), engine.masks.checksum()), f"{folder}/{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def test_both_ranks_have_the_same_exact_masks(tmp_path):
    multiprocessing.spawn(train, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first == second
    assert first[0] == 16
    assert first[1] == first[2] == pytest.approx(0.9, abs=1e-3)
