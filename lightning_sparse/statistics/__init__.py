"""Intervals and paired tests: numbers in, numbers out, with numpy and scipy alone.

Example:
    >>> from lightning_sparse.statistics import wilson
    >>> low, high = wilson(90, 100)
    >>> f"{low:.3f} to {high:.3f}"
    '0.826 to 0.945'
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
