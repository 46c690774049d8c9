"""The Hydra app: one job, a launch, the end of a sweep, and the commands."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
