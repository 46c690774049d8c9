"""The callback against looks made beside it: windows, arrays, resume, and that it changes nothing."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

import settings
from lightning_sparse import ExampleScores, SparsityError
from lightning_sparse.measure.examples.history import ExampleHistory
from lightning_sparse.measure.examples.look import look_at


class Module(settings.Module):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x.flatten(1), 0.2, self.training))


def probe(count=40):
    images, labels = settings.digits()[:count]
    return images.view(-1, 1, 8, 8), labels


class Beside(Callback):
    def __init__(self):
        self.looks = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.looks.append(look_at(pl_module, *probe()))


def scores_of(looks):
    history = ExampleHistory(*probe())
    for look in looks:
        history.add(look)
    return history.scores()


def test_scores_and_windows_are_those_of_looks_made_beside_it(loader, make_trainer):
    scores, beside = ExampleScores(probe(), window=0.4), Beside()
    make_trainer(scores, beside, max_epochs=7).fit(Module(), loader)
    wrong = torch.arange(40) % 4 == 0
    found = scores.measured(wrong)
    for name, values in scores_of(beside.looks).items():
        assert np.allclose(found.arrays[f"example_{name}"], values, rtol=1e-4), name
    rows = {row.condition: row for row in found.records if row.metric == "noise_auroc"}
    assert rows["loss"].detail.startswith("7 looks, 10 wrong labels")
    for window, looks in (("early", beside.looks[:2]), ("late", beside.looks[4:])):
        loss = scores_of(looks)["loss"]
        pairs = loss[wrong.numpy()][:, None] > loss[~wrong.numpy()]
        assert rows[f"loss {window}"].value == pytest.approx(pairs.mean())


def test_it_changes_no_weight(loader, make_trainer):
    trained = []
    for callbacks in ([], [ExampleScores(probe())]):
        torch.manual_seed(0)
        module = Module()
        make_trainer(*callbacks, max_epochs=2).fit(module, loader)
        trained.append(module.state_dict())
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_its_state_goes_on_and_other_labels_are_refused(loader, make_trainer):
    scores = ExampleScores(probe())
    make_trainer(scores, max_epochs=3).fit(Module(), loader)
    restored = ExampleScores(probe())
    restored.load_state_dict(scores.state_dict())
    assert np.array_equal(restored.measured().arrays["example_loss"], scores.measured().arrays["example_loss"])
    images, labels = probe()
    with pytest.raises(SparsityError, match="other images or labels"):
        ExampleScores((images, labels.flip(0))).load_state_dict(scores.state_dict())


def test_nothing_was_looked_at():
    with pytest.raises(SparsityError, match="call measured"):
        ExampleScores(probe()).measured()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"window": 0.7}, r"window=0.7 is not in \(0, 0.5\]"), ({"images": 0}, "images=0"), ({"every": 1.5}, "every=1.5")],
)
def test_odd_values_are_refused(arguments, message):
    with pytest.raises(SparsityError, match=message):
        ExampleScores(probe(), **arguments)
