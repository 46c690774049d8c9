"""A Lightning-Hydra project in the style of ashleve/lightning-hydra-template, made sparse by its configs alone.

Nothing here imports lightning_sparse: its callbacks are entries with a `_target_` in configs/callbacks/default.yaml.
In this folder:

    python train.py                                                    # brain development to 90 % sparsity
    python train.py callbacks.sparsity.final_sparsity=0.5              # any argument of a callback,
    python train.py +callbacks.sparsity.exclude='["net.0.*"]'          # with a plus where the config does not name it
    python train.py callbacks=gradual                                  # another method
    python train.py '~callbacks.sparsity'                              # the dense network
    python train.py -m callbacks.sparsity.final_sparsity=0.5,0.95      # two jobs, one after the other
    python train.py trainer.max_epochs=18 ckpt_path=last.ckpt          # resume from a checkpoint

Results go to outputs/hydra_template/ below the folder you are in.
"""

import warnings

import hydra
import lightning
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

# The data are a few hundred kilobytes in memory: workers would only take time to start.
warnings.filterwarnings("ignore", ".*does not have many workers")


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(cfg: DictConfig) -> float:
    """Train, test the best checkpoint, and return its accuracy for a sweeper to optimise."""
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = instantiate(cfg.data)
    model = instantiate(cfg.model)
    callbacks = [instantiate(callback) for callback in cfg.callbacks.values()]
    loggers = [instantiate(logger) for logger in cfg.logger.values()]
    trainer = instantiate(cfg.trainer, callbacks=callbacks, logger=loggers)

    trainer.fit(model, datamodule, ckpt_path=cfg.ckpt_path)
    path = trainer.checkpoint_callback.best_model_path
    accuracy = trainer.test(model, datamodule, ckpt_path=path, verbose=False)[0]["test/acc"]

    # Counted in the file, an ordinary checkpoint whose dead weights are zero (a newborn connection may still be zero too).
    weights = torch.load(path, weights_only=True)["state_dict"]
    weights = [weight for name, weight in weights.items() if name.endswith("weight") and weight.dim() > 1]
    zeros, total = sum(int((weight == 0).sum()) for weight in weights), sum(weight.numel() for weight in weights)
    print(f"test accuracy: {accuracy:.3f}")
    print(f"sparsity: {zeros} of {total} weights are zero ({zeros / total:.4f})")
    print(f"results: {path}")
    return accuracy


if __name__ == "__main__":
    main()
