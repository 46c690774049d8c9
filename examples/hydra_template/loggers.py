"""TensorBoard where it is installed; elsewhere a second CSV file, so that the example needs nothing more."""

from importlib.util import find_spec

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger


def tensorboard_or_csv(save_dir: str) -> Logger:
    """Build the logger that this environment can have."""
    if find_spec("tensorboard") or find_spec("tensorboardX"):
        return TensorBoardLogger(save_dir, name="tensorboard")
    return CSVLogger(save_dir, name="csv_instead_of_tensorboard")
