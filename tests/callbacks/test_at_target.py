"""Checkpoints and early stopping that wait for the final sparsity, compared with Lightning's, which do not."""

import inspect

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import settings
from lightning_sparse import (
    AtTargetSparsity,
    CheckpointAtTarget,
    Curve,
    GradualPruning,
    SparseTraining,
    SparsityError,
    StopAtTarget,
    load_masks,
)

# Some runs share a folder of checkpoints, and some go on without the callback that saved.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),
    pytest.mark.filterwarnings(
        "ignore:You're resuming from a checkpoint that ended before the epoch ended:UserWarning"
    ),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
]


class Denser(settings.Module):
    """Its score is the share of weights that are not zero, so that it falls as connections die: denser is better."""

    def validation_step(self, batch, batch_idx):
        weights = [self.body[0].weight, self.body[3].weight, self.head.weight]
        self.log("density", sum((w != 0).float().sum() for w in weights) / sum(w.numel() for w in weights))

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss)
        return loss


def run(make_trainer, *callbacks, resume=None, **arguments):
    """Twenty steps, validated after every second; the final sparsity is reached at step 15, or where a method has it."""
    saves = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    defaults = {"max_epochs": 2, "val_check_interval": 2, "enable_checkpointing": saves}
    model, trainer = Denser(), make_trainer(*callbacks, **{**defaults, **arguments})
    trainer.fit(model, settings.batches(), settings.batches(), ckpt_path=resume, **(settings.SAFE if resume else {}))
    return model


def holds(file, sparsity=0.9) -> bool:
    """Whether a checkpoint's masks have exactly the sparsity asked for, and its weights are zero there."""
    masks, weights = load_masks(file), torch.load(file, weights_only=True)["state_dict"]
    zero = all(bool((weights[name][~mask] == 0).all()) for name, mask in masks.items())
    return settings.exact(masks, sparsity) and zero


def step_of(file) -> int:
    return torch.load(file, weights_only=True)["global_step"]


# Checkpoints


def test_the_best_file_has_the_sparsity_asked_for_where_a_plain_one_would_be_denser(
    make_method, make_trainer, tmp_path
):
    method = make_method(0.9)
    plain = ModelCheckpoint(tmp_path / "plain", filename="{step}", monitor="density", mode="max", save_top_k=-1)
    ours = CheckpointAtTarget(tmp_path / "ours", filename="{step}", monitor="density", mode="max", save_top_k=-1)
    model = run(make_trainer, method, plain, ours)
    settled = method.engine.plan.sparsity.settled
    assert holds(ours.best_model_path)
    assert settings.exact(method.masks, 0.9)
    assert settings.dead_are_zero(model, method.masks)

    # Every file of ours is of the final sparsity, and there is one for each validation from there on.
    files = sorted(map(step_of, (tmp_path / "ours").glob("*.ckpt")))
    assert files == [step for step in range(2, 21, 2) if step >= settled]
    assert all(map(holds, (tmp_path / "ours").glob("*.ckpt")))

    # If there was anything denser on the way, Lightning's has chosen it.
    assert len(list((tmp_path / "plain").glob("*.ckpt"))) == 10
    assert holds(plain.best_model_path) == (settled == 0)


def test_a_plain_one_beside_it_saves_on_the_way(make_trainer, tmp_path):
    plain = ModelCheckpoint(tmp_path / "plain", filename="{step}", every_n_train_steps=5, save_top_k=-1)
    ours = CheckpointAtTarget(tmp_path / "ours", filename="{step}", every_n_train_steps=5, save_top_k=-1)
    run(make_trainer, GradualPruning(0.9), plain, ours)
    assert sorted(map(step_of, (tmp_path / "plain").glob("*.ckpt"))) == [5, 10, 15, 20]
    assert sorted(map(step_of, (tmp_path / "ours").glob("*.ckpt"))) == [15, 20]


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ({"every_n_train_steps": 4}, [16, 20]),
        ({"every_n_train_steps": 1}, list(range(15, 21))),
        ({"every_n_epochs": 1, "save_on_train_epoch_end": True}, [20]),
        ({"every_n_epochs": 1}, [16, 18, 20]),
        ({"monitor": "density"}, [16, 18, 20]),
        ({"monitor": "loss", "save_on_train_epoch_end": True}, [20]),
    ],
    ids=str,
)
def test_however_it_is_triggered_it_never_saves_before(arguments, steps, make_trainer, tmp_path):
    run(make_trainer, GradualPruning(0.9), CheckpointAtTarget(tmp_path, filename="{step}", save_top_k=-1, **arguments))
    assert sorted(map(step_of, tmp_path.glob("*.ckpt"))) == steps
    assert all(map(holds, tmp_path.glob("*.ckpt")))


def test_save_top_k_and_save_last(make_trainer, tmp_path):
    ours = CheckpointAtTarget(tmp_path, filename="{step}", monitor="density", mode="max", save_top_k=2, save_last=True)
    run(make_trainer, GradualPruning(0.9), ours)
    assert len(ours.best_k_models) == 2
    assert sorted(file.name for file in tmp_path.glob("*.ckpt") if file.stem != "last") == [
        "step=16.ckpt",
        "step=18.ckpt",
    ]
    assert step_of(tmp_path / "last.ckpt") >= 16
    assert all(map(holds, tmp_path.glob("*.ckpt")))


@pytest.mark.parametrize("save_last", [None, True, "link"])
def test_a_training_that_stops_before_leaves_no_file(save_last, make_trainer, tmp_path):
    ours = CheckpointAtTarget(tmp_path, monitor="density", save_last=save_last)
    with pytest.warns(UserWarning, match="planned for step 50, and this training has 20 steps: write end=20"):
        run(make_trainer, GradualPruning(0.9, end=50, every=1), ours)
    assert not list(tmp_path.iterdir())
    assert (ours.best_model_path, ours.last_model_path) == ("", "")


@pytest.mark.skipif(
    "save_on_exception" not in inspect.signature(ModelCheckpoint).parameters, reason="this Lightning saves nothing then"
)
def test_an_exception_before_leaves_no_file_and_one_after_leaves_a_true_one(make_trainer, tmp_path):
    class Fails(Callback):
        def __init__(self, step):
            self.step = step

        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == self.step:
                raise RuntimeError("enough")

    for step, steps in ((7, []), (17, [17])):
        ours = CheckpointAtTarget(tmp_path, filename="{step}", monitor="density", save_top_k=0, save_on_exception=True)
        with pytest.raises(RuntimeError, match="enough"):
            run(make_trainer, GradualPruning(0.9), Fails(step), ours)
        assert sorted(map(step_of, tmp_path.glob("*.ckpt"))) == steps
        assert all(map(holds, tmp_path.glob("*.ckpt")))


def test_the_final_sparsity_is_the_last_one_and_not_the_highest(make_trainer, tmp_path):
    """A curve may pass its final value on the way."""
    there_and_back = SparseTraining(
        Curve(0.0).then(5, 0.9, "linear").then(10, 0.5, "linear").then(14, 0.9, "linear"), every=1
    )
    run(
        make_trainer,
        there_and_back,
        CheckpointAtTarget(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1),
    )
    assert sorted(map(step_of, tmp_path.glob("*.ckpt"))) == list(range(14, 21))
    assert all(map(holds, tmp_path.glob("*.ckpt")))


def test_of_two_sparsity_callbacks_it_waits_for_both(make_trainer, tmp_path):
    body = GradualPruning(0.9, include=["body.?.weight"], exclude=["body.1.*"], end=6, every=1)
    head = GradualPruning(0.5, include=["head.weight"], end=12, every=1)
    run(make_trainer, body, head, CheckpointAtTarget(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1))
    assert sorted(map(step_of, tmp_path.glob("*.ckpt"))) == list(range(12, 21))


def test_without_a_sparsity_callback_it_is_the_plain_one(make_trainer, tmp_path):
    for name, kind in (("plain", ModelCheckpoint), ("ours", CheckpointAtTarget)):
        run(make_trainer, kind(tmp_path / name, filename="{step}", monitor="density", save_top_k=-1))
    names = [sorted(file.name for file in (tmp_path / name).iterdir()) for name in ("plain", "ours")]
    assert names[0] == names[1]
    assert len(names[0]) == 10


# Early stopping


def test_it_does_not_stop_at_the_dip_that_pruning_makes(make_trainer):
    kinds = {EarlyStopping: [], StopAtTarget: []}
    for kind in kinds:
        method = GradualPruning(0.9)
        stop = kind(monitor="density", mode="max", patience=2)
        if kind is EarlyStopping:
            with pytest.warns(UserWarning, match="before step 15 where the sparsity asked for would have been reached"):
                run(make_trainer, method, stop)
        else:
            run(make_trainer, method, stop)
        kinds[kind] = method.engine.clock, stop.stopped_epoch, method.sparsity
    assert kinds[EarlyStopping][0] == 6  # one best, at step 2, and patience for two more
    assert kinds[StopAtTarget][0] == 20
    assert settings.exact(method.masks, 0.9)


def test_its_patience_begins_at_the_final_sparsity(make_method, make_trainer):
    method = make_method(0.9)
    stop = StopAtTarget(monitor="density", mode="max", patience=1)
    run(make_trainer, method, stop)
    settled = method.engine.plan.sparsity.settled
    looks = [step for step in range(2, 21, 2) if step >= settled]
    assert method.engine.clock == looks[1]  # the first validation is the best of all, the second is one too many
    assert stop.wait_count == 1
    assert settings.exact(method.masks, 0.9)


def test_it_may_look_at_the_end_of_training_epochs(make_trainer):
    method = GradualPruning(0.9, end=0.4)
    stop = StopAtTarget(monitor="loss", mode="max", patience=1, check_on_train_epoch_end=True)
    run(make_trainer, method, stop, max_epochs=8)
    # Settled at step 32, so that the epochs before the fourth do not count: the loss falls from the first look on.
    assert method.engine.clock == 50


# The user's own


class Notes(Callback):
    """A callback that a user may write: it notes when it is called."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, *_):
        self.seen.append(("batch", trainer.global_step))

    def on_train_epoch_end(self, trainer, *_):
        self.seen.append(("epoch", trainer.global_step))

    def on_validation_end(self, trainer, *_):
        self.seen.append(("validation", trainer.global_step))


class NotesAtTarget(AtTargetSparsity, Notes):
    pass


def test_a_user_defined_callback_waits_for_the_final_sparsity(make_method, make_trainer):
    method, all_of_it, ours = make_method(0.9), Notes(), NotesAtTarget()
    run(make_trainer, method, all_of_it, ours, num_sanity_val_steps=0)
    settled = method.engine.plan.sparsity.settled
    assert len(all_of_it.seen) == 20 + 10 + 2
    assert ours.seen == [note for note in all_of_it.seen if note[1] >= settled]


def test_the_sanity_check_comes_before_the_target(make_trainer):
    """A callback that has trained before is not at the target of the training to come."""
    method, ours = GradualPruning(0.9), NotesAtTarget()
    run(make_trainer, method)
    assert method.at_target
    run(make_trainer, method, ours)
    assert min(step for _, step in ours.seen) >= 15


# Resuming


def half(folder):
    """A plain checkpoint of the first epoch's end; "static" and "rigl" are at their target by then, the others are not."""
    return ModelCheckpoint(folder, filename="{epoch}", every_n_epochs=1, save_top_k=-1, save_on_train_epoch_end=True)


def test_a_resumed_run_keeps_the_files_that_the_uninterrupted_one_keeps(make_method, make_trainer, tmp_path):
    folder = tmp_path / "files"
    arguments = {"filename": "{step}", "monitor": "density", "mode": "max", "save_top_k": 2}
    whole, resumed = (CheckpointAtTarget(folder, enable_version_counter=False, **arguments) for _ in range(2))
    run(make_trainer, make_method(0.9), whole, half(tmp_path))
    run(make_trainer, make_method(0.9), resumed, resume=tmp_path / "epoch=0.ckpt")
    assert resumed.best_k_models.keys() == whole.best_k_models.keys() == set(map(str, folder.iterdir()))
    assert resumed.best_model_path == whole.best_model_path
    assert all(map(holds, folder.iterdir()))


def test_patience_goes_on_where_it_was(make_trainer, tmp_path):
    first, resumed = (StopAtTarget(monitor="density", mode="max", patience=3) for _ in range(2))
    run(make_trainer, GradualPruning(0.9, end=5), first, half(tmp_path), max_epochs=1)
    assert first.wait_count == 2  # it has looked at 6, 8 and 10
    method = GradualPruning(0.9, end=5)
    run(make_trainer, method, resumed, max_epochs=4, resume=tmp_path / "epoch=0.ckpt")
    assert method.engine.clock == 12
    assert resumed.wait_count == 3


@pytest.mark.parametrize("kind", [CheckpointAtTarget, StopAtTarget])
def test_a_monitor_that_the_first_epoch_has_not_logged_is_said(kind, make_trainer, tmp_path):
    folder = {"dirpath": tmp_path} if kind is CheckpointAtTarget else {}
    run(make_trainer, GradualPruning(0.9), kind(monitor="density", **folder))
    for name, guess in (("denisty", "did you mean 'density'"), ("fid", "Unless it comes later")):
        said = rf"monitor='{name}' of .* was not logged in the first epoch .*loss\): {guess}"
        ends = pytest.raises((RuntimeError, MisconfigurationException), match=name)  # Lightning's own, at the target
        with pytest.warns(UserWarning, match=said), ends:
            run(make_trainer, GradualPruning(0.9), kind(monitor=name, **folder))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CheckpointAtTarget(monitor=3),
            "monitor=3 of CheckpointAtTarget is not a name: write monitor='val_loss'",
        ),
        (lambda: CheckpointAtTarget(monitor=""), "monitor='' of"),
        (lambda: CheckpointAtTarget(monitor="loss", filename=5), "filename=5 of .* write filename='{epoch}'"),
        (lambda: CheckpointAtTarget(monitor="loss", train_time_interval=5), r"write train_time_interval=timedelta\("),
        (lambda: StopAtTarget(monitor=["loss"]), "monitor=.* of StopAtTarget is not a name"),
        (lambda: StopAtTarget("loss", patience="3"), "patience of StopAtTarget='3' is not an integer .*: write 1"),
        (lambda: StopAtTarget("loss", strict="no"), "strict of StopAtTarget='no' is neither true nor false"),
        (lambda: CheckpointAtTarget(monitor="loss", mode="most"), "mode of CheckpointAtTarget='most' does not exist"),
        (lambda: CheckpointAtTarget(5), "dirpath=5 of CheckpointAtTarget is not a path"),
        (lambda: CheckpointAtTarget(save_top_k=None), "save_top_k of CheckpointAtTarget=None is not an integer"),
        (lambda: StopAtTarget("loss", min_delta="a"), "min_delta='a' of StopAtTarget is not a number"),
        (lambda: StopAtTarget("loss", stopping_threshold=[1]), "stopping_threshold="),
        (lambda: StopAtTarget("loss", verbose="no"), "verbose of StopAtTarget='no' is neither true nor false"),
        (lambda: CheckpointAtTarget(save_last="no"), "save_last of CheckpointAtTarget='no' is neither true nor false"),
    ],
)
def test_wrong_arguments_are_refused_at_once(make, message):
    with pytest.raises(SparsityError, match=message):
        make()


def test_the_signatures_are_those_of_lightning():
    assert inspect.signature(CheckpointAtTarget) == inspect.signature(ModelCheckpoint)
    assert inspect.signature(StopAtTarget) == inspect.signature(EarlyStopping)
