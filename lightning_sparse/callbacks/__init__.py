"""The engine wired to the Lightning Trainer, and one short file per recipe or monitor."""
