"""A process that may not take more memory measures with fewer images at a time, says so, and finds the same."""

import os

import pytest
import torch

import warm_process
from lightning_sparse.measure import measure_accuracy
from lightning_sparse.measure.smaller_batches import smaller_batches

SCRIPT = """
import resource, sys, warnings
import torch
from torch import nn
from lightning_sparse.measure import measure_accuracy, measure_hessian, measure_robustness, measure_saliency

class Large(nn.Module):
    '''Needs 2 MB for each image that it is given.'''
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    def forward(self, images):
        logits = self.net(images)
        return logits + 0 * torch.ones(len(images), 2**19)[:, :4]

def found():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        rows = measure().records
    return [(row.metric, round(row.value, 6)) for row in rows], [str(one.message) for one in said]

torch.manual_seed(0)
data = torch.rand(300, 1, 8, 8), torch.arange(300) % 4
model = Large()
measure = {
    "accuracy": lambda: measure_accuracy(model, data),
    "robustness": lambda: measure_robustness(model, data, eps=[0.05], tier="monitor"),
    "saliency": lambda: measure_saliency(model, data, methods=["gradient"], measures=["gini"]),
}[sys.argv[1]]
free, quiet = found()
assert not quiet, quiet
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 375_000_000, -1))
little, said = found()
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
assert little == free, (little, free)
print(said)
"""


@pytest.mark.parametrize(("what", "first"), [("accuracy", 512), ("robustness", 256), ("saliency", 512)])
def test_with_little_memory_the_same_is_found_with_fewer_images_at_a_time(what, first, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = warm_process.run("script.py", what, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{first} images at a time do not fit into memory, and {first // 2} are tried" in done.stdout


def test_data_that_can_be_read_once_are_not_read_again():
    """The second reading would find them empty, and say so in place of the reason."""

    class Full(torch.nn.Module):
        def forward(self, images):
            raise torch.OutOfMemoryError("CUDA out of memory")

    batches = [(torch.rand(4, 1, 8, 8), torch.arange(4))]
    with pytest.raises(torch.OutOfMemoryError):
        measure_accuracy(Full(), iter(batches))
    with pytest.raises(torch.OutOfMemoryError), pytest.warns(UserWarning, match="do not fit into memory"):
        measure_accuracy(Full(), batches)


def test_one_image_that_does_not_fit_is_an_error():
    tried = []

    @smaller_batches
    def measure(*, batch_size=8):
        tried.append(batch_size)
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.warns(UserWarning, match="do not fit into memory"), pytest.raises(torch.OutOfMemoryError):
        measure()
    assert tried == [8, 4, 2, 1]


def test_other_errors_are_not_tried_again():
    tried = []

    @smaller_batches
    def measure(*, batch_size=8):
        tried.append(batch_size)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        measure()
    assert tried == [8]
