"""Measure a trained classifier: accuracy, robustness, saliency, description length. Any nn.Module, without a Trainer.

The stub beside this file lists the public names; each is imported when it is first used.

Example:
    >>> import torch
    >>> from lightning_sparse import measure
    >>> images, labels = torch.eye(4).view(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LogSoftmax(1))  # predicts the brightest pixel's number
    >>> found = measure.measure_accuracy(model, (images, labels))
    >>> found.records[0].metric, found.records[0].value
    ('clean_accuracy', 0.75)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
