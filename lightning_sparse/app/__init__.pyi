from .hydra_parts import SweepWatcher as SweepWatcher
