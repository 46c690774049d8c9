"""What a network costs to keep and to run: parameters, FLOPs, memory and bytes on disk, dense and under its masks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lightning_sparse.anatomy.isolation import device_of, untouched
from lightning_sparse.anatomy.layer_calls import CallRecorder
from lightning_sparse.anatomy.living import living_of
from lightning_sparse.errors import SparsityError, check_count
from lightning_sparse.measure.advice import with_forward
from lightning_sparse.measure.arrays import check_weight_masks
from lightning_sparse.measure.checks import check_images
from lightning_sparse.measure.classifier import as_classifier, batches
from lightning_sparse.measure.description.peak_memory import peak_memory
from lightning_sparse.measure.description.storage import storage_formats
from lightning_sparse.measure.images_and_labels import Data, images_and_labels
from lightning_sparse.results.records import Measured, Record


def measure_cost(
    model: nn.Module,
    data: Data,
    *,
    masks: Mapping[str, Tensor] | None = None,
    batch_size: int = 64,
    progress: bool = False,
) -> Measured:
    """Count parameters, FLOPs of a forward pass, peak memory and storage. Nothing is timed.

    FLOPs are those of Linear, Conv, recurrent and attention weights, two a multiply-add (``anatomy/flops.py``).
    The sparse count is what kernels that skip every dead connection would do; dense kernels do the dense count, and hold
    dead weights in memory, so that peak memory is the same at every sparsity.

    Args:
        model: pixels in [0, 1] to logits, see :func:`~lightning_sparse.measure.as_classifier`; it is left as it was.
        data: images and labels; the first ``batch_size`` are used, the labels not at all.
        masks: by parameter name, True where a connection lives; without them zeros of sparsifiable weights are dead.
        batch_size: images in the one batch whose memory is measured; more than 1, or BatchNorm may be unable to train.
        progress: show a bar over the four parts.

    Returns:
        Records: ``cost_parameters``; ``cost_living`` (parameters without the dead connections); ``cost_flops_dense`` and
        ``cost_flops``, of one image; ``cost_peak_memory_inference`` and ``cost_peak_memory_training``, in bytes
        (:func:`~lightning_sparse.measure.description.peak_memory.peak_memory`); and the ``cost_bytes_*`` of
        :func:`~lightning_sparse.measure.storage_formats`. No arrays.

    Raises:
        SparsityError: if masks, images or ``batch_size`` are not what they should be.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> net[1].weight.data[:, :48] = 0
        >>> found = measure_cost(net, (torch.rand(8, 1, 8, 8), torch.zeros(8, dtype=torch.long)))
        >>> [(row.metric, row.value) for row in found.records[:4]]
        [('cost_parameters', 650), ('cost_living', 170), ('cost_flops_dense', 1280.0), ('cost_flops', 320.0)]
    """
    images, labels = images_and_labels(data, check_count("batch_size", batch_size, write=64))
    check_images(images, labels)
    classifier = as_classifier(model)
    model = classifier.model
    check_weight_masks(masks, dict(model.named_parameters()))
    counts = {name: (int(alive.sum()), alive.numel()) for name, (_, alive) in living_of(model, masks).items()}
    with tqdm(total=4, desc="cost", disable=not progress, leave=False) as bar:
        rows = [*_parameters(model, counts), *_flops(classifier, model, counts, images)]
        for training in (False, True):
            bar.update()
            rows.append(_peak(classifier, images, training))
        bar.update()
        rows += storage_formats(model, masks).records
        bar.update()
    return Measured(rows)


def _parameters(model: nn.Module, counts: Mapping[str, tuple[int, int]]) -> list[Record]:
    everything = sum(parameter.numel() for parameter in model.parameters())
    living, total = (sum(column) for column in zip(*counts.values(), strict=True))
    aside = f"{living} of {total} sparsifiable connections live; {everything - total} other parameters all count"
    return [
        Record("cost_parameters", everything, 0, detail="tied ones once"),
        Record("cost_living", everything - total + living, 0, detail=aside),
    ]


def _flops(
    classifier: nn.Module, model: nn.Module, counts: Mapping[str, tuple[int, int]], images: Tensor
) -> list[Record]:
    dense = sparse = 0.0
    eager = torch.compiler.set_stance("force_eager")  # calls inside a compiled graph cannot be seen
    with untouched(classifier), torch.no_grad(), eager, CallRecorder(model) as recorder:
        (batch,) = next(batches(len(images), device_of(classifier), images))
        with warnings.catch_warnings():
            # The hook also fires for the shell of a compiled module, which is not counted.
            message = r"Using `torch\.compile\(module\)` when there are global hooks"
            warnings.filterwarnings("ignore", message, UserWarning)
            classifier(batch)
    for call in recorder.calls:
        living, total = counts.get(call.name, (1, 1))
        dense += call.flops / len(images)
        sparse += call.flops / len(images) * living / total
    detail = "of one image, forward pass, two a multiply-add of the weights"
    if unseen := sorted(counts.keys() - {call.name for call in recorder.calls}):
        detail += f"; without {', '.join(unseen)}, used by no layer that can be seen"
    alone = f"{detail}; living connections only, which no dense kernel saves"
    return [
        Record("cost_flops_dense", dense, len(images), detail=detail),
        Record("cost_flops", sparse, len(images), detail=alone),
    ]


def _peak(classifier: nn.Module, images: Tensor, training: bool) -> Record:
    name = "training" if training else "inference"
    try:
        value = peak_memory(classifier, images, training=training)
    except RuntimeError as error:
        if not training or "does not require grad" not in str(error):
            raise
        raise SparsityError(
            f"the logits have no gradient in the weights ({error}), and the memory of a training is measured: write "
            f"{with_forward('...')} with a call that keeps the gradient"
        ) from error
    except ValueError as error:
        if len(images) > 1 or not training:
            raise
        raise SparsityError(
            f"the model cannot train on 1 image ({error}): give 2 images or more, batch_size=64"
        ) from error
    passes = "forward and backward, no optimizer" if training else "forward in eval mode, no gradients"
    cuda = device_of(classifier).type == "cuda"
    on = "torch's allocator on CUDA" if cuda else "tensors alive, kernels' workspaces unseen"
    detail = f"bytes, batch size {len(images)}, {passes}; {on}; dead weights take their place like living ones"
    return Record(f"cost_peak_memory_{name}", value, len(images), detail=detail)
