"""What is given as ``ckpt_path`` and is no checkpoint of a Trainer is refused in one sentence that says what it is."""

import copy

import pytest
import torch

from lightning_sparse import (
    AdversarialTraining,
    GradualPruning,
    RandomState,
    RobustnessMonitor,
    SparsityError,
    SparsityMonitor,
    VarianceOfGradients,
)
from settings import SAFE

pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),
    pytest.mark.filterwarnings("ignore:the Trainer's length has changed:UserWarning"),
]


@pytest.fixture
def good(module, loader, make_trainer, tmp_path):
    trainer = make_trainer(GradualPruning(0.9), RandomState(), max_epochs=1)
    trainer.fit(module(), loader)
    trainer.save_checkpoint(tmp_path / "good.ckpt")
    return tmp_path / "good.ckpt"


@pytest.fixture
def resume(module, loader, make_trainer):
    def go(path, *callbacks, **how):
        trainer = make_trainer(*(callbacks or (GradualPruning(0.9), RandomState())), max_epochs=2)
        trainer.fit(module(), loader, ckpt_path=path, **(SAFE | how))
        return trainer

    return go


def state(content):
    return next(value for name, value in content["callbacks"].items() if name.startswith("lightning_sparse"))


def test_a_file_that_is_no_checkpoint(good, resume, tmp_path):
    path, raw = tmp_path / "given.ckpt", good.read_bytes()
    for data in (b"", b"hello\n", b"<!DOCTYPE html>", raw[: len(raw) // 2], raw[:-1], b"\x89PNG\r\n\x1a\n" + raw[:99]):
        path.write_bytes(data)
        for safe in (True, False):
            with pytest.raises(SparsityError, match=r"given\.ckpt' is no checkpoint, or truncated") as raised:
                resume(path, weights_only=safe)
            assert "weights_only" not in str(raised.value)


def test_a_path_that_is_no_file(good, resume, tmp_path):
    with pytest.raises(SparsityError, match="does not exist: give the path"):
        resume(tmp_path / "none.ckpt")
    with pytest.raises(SparsityError, match=r"is a folder, and no checkpoint: .*such as '.*good\.ckpt'"):
        resume(tmp_path)


@pytest.mark.parametrize("what", [None, [1], 5, torch.zeros(3), {}])
def test_a_file_that_holds_something_else(what, resume, tmp_path):
    torch.save(what, tmp_path / "given.ckpt")
    with pytest.raises(SparsityError, match=r"holds .* and not what a Trainer has saved"):
        resume(tmp_path / "given.ckpt")


def test_weights_alone_are_refused_and_the_advice_works(good, module, loader, make_trainer, resume, tmp_path):
    path = tmp_path / "weights.ckpt"
    torch.save(torch.load(good, weights_only=True)["state_dict"], path)
    with pytest.raises(SparsityError, match=r"weights alone.*model\.load_state_dict\(torch\.load\(path\)\)"):
        resume(path)
    model = module()
    model.load_state_dict(torch.load(path))
    make_trainer(GradualPruning(0.9), max_epochs=1).fit(model, loader)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"masks": None}, "its 'masks' is None"),
        ({"masks": [1]}, r"its 'masks' is \[1\]"),
        ({"recipe": None}, "its 'recipe' is None"),
        ({"clock": "a"}, "its 'clock' is 'a'"),
        ({"history": 5}, "its 'history' is 5"),
        ({"history": [{"a": 1}]}, "TypeError"),
        ({"plan": {}}, "KeyError"),
    ],
)
def test_a_damaged_state_is_refused(changes, says, good, resume, tmp_path):
    content = torch.load(good, weights_only=True)
    state(content).update(changes)
    torch.save(content, tmp_path / "given.ckpt")
    with pytest.raises(
        SparsityError, match=f"sparse state is damaged .*{says}.*take another checkpoint, or start a new"
    ):
        resume(tmp_path / "given.ckpt")


def test_a_mask_of_no_bytes_is_not_all_alive(good, resume, tmp_path):
    content = torch.load(good, weights_only=True)
    entry = next(iter(state(content)["masks"].values()))
    entry["bits"] = entry["bits"][:0]
    torch.save(content, tmp_path / "given.ckpt")
    with pytest.raises(SparsityError, match="has 0 bytes"):
        resume(tmp_path / "given.ckpt")


def test_masks_of_names_that_the_model_has_not(good, resume, tmp_path):
    content = torch.load(good, weights_only=True)
    masks = state(content)["masks"]
    state(content)["masks"] = {f"other.{name}": entry for name, entry in masks.items()}
    torch.save(content, tmp_path / "given.ckpt")
    with pytest.raises(SparsityError, match="masks do not fit the model"):
        resume(tmp_path / "given.ckpt")


def test_damaged_random_states_are_refused_and_the_advice_works(good, resume, tmp_path):
    content = torch.load(good, weights_only=True)
    for damaged in (None, [], {}, {"ranks": None}, {"ranks": [{}]}):
        changed = copy.deepcopy(content)
        changed["callbacks"]["RandomState"] = damaged
        torch.save(changed, tmp_path / "given.ckpt")
        if damaged:
            with pytest.raises(SparsityError, match="random states are damaged"):
                resume(tmp_path / "given.ckpt")
    assert resume(tmp_path / "given.ckpt", GradualPruning(0.9)).current_epoch == 2


def test_a_whole_checkpoint_goes_on_and_the_trainer_is_left_as_it_was(good, resume):
    trainer = resume(good)
    assert trainer.current_epoch == 2
    assert "load_checkpoint" not in vars(trainer.strategy)


@pytest.mark.parametrize(
    "damaged", [{"a": 1}, [1], {"rows": 5, "lifetimes": 5, "following": 5, "plan": 5, "eps": 1}, "text"]
)
@pytest.mark.parametrize("make", [SparsityMonitor, lambda: RobustnessMonitor(0.1), VarianceOfGradients])
def test_a_damaged_state_of_another_callback_names_it(make, damaged):
    callback = make()
    with pytest.raises(
        SparsityError, match=f"state of {type(callback).__name__} is damaged .*leave .* out of the callbacks"
    ):
        callback.load_state_dict(damaged)
    callback.load_state_dict(make().state_dict())


def test_a_damaged_state_of_adversarial_training_names_it():
    with pytest.raises(SparsityError, match="state of AdversarialTraining is damaged"):
        AdversarialTraining(0.1).load_state_dict([1])


class OfOnesOwn:
    pass


def test_lightnings_own_advice_stays_where_it_is_right(good, resume, tmp_path):
    content = torch.load(good, weights_only=True) | {"hyper_parameters_of_mine": OfOnesOwn()}
    torch.save(content, tmp_path / "given.ckpt")
    with pytest.raises(Exception, match="weights_only"):
        resume(tmp_path / "given.ckpt", weights_only=True)
    assert resume(tmp_path / "given.ckpt", weights_only=False).current_epoch == 2


def test_a_pickled_module_gets_no_advice_to_trust_it(resume, tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.ckpt")
    with pytest.raises(SparsityError, match="holds objects, and not what a Trainer has saved") as raised:
        resume(tmp_path / "module.ckpt")
    assert "weights_only" not in str(raised.value)
