"""Data: scikit-learn's 1797 digits of 8x8 pixels, in three parts."""

import torch
from lightning import LightningDataModule
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset, random_split


class DigitsDataModule(LightningDataModule):
    """Training, validation and test images in [0, 1]."""

    def __init__(self, batch_size: int = 64) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        """Read the digits and split them, the same way in every stage."""
        digits = load_digits()
        everything = TensorDataset(torch.tensor(digits.images / 16).float().unsqueeze(1), torch.tensor(digits.target))
        self.train, self.val, self.test = random_split(
            everything, [1197, 300, 300], generator=torch.Generator().manual_seed(42)
        )

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches."""
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Images to choose settings by."""
        return DataLoader(self.val, batch_size=self.batch_size)

    def test_dataloader(self) -> DataLoader:
        """Images that no choice has seen."""
        return DataLoader(self.test, batch_size=self.batch_size)
