"""Each image of a training batch is augmented by draws of its own, and nothing else sees it."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

import settings
import within_epoch_script as script
from callbacks.test_adversarial_training import Own
from callbacks.test_within_epoch import Stop, often, same_end  # noqa: F401
from lightning_sparse import AdversarialTraining, Augmentation, ExampleScores, GradualPruning, SparsityError
from lightning_sparse.callbacks.augmentation import cut_out, shifted
from lightning_sparse.data import ImageData, TextData
from settings import SAFE

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")


class Seeing(settings.Module):
    """Keeps what its steps see; its weights stay as they are."""

    def __init__(self, inputs=64, lr=0.0):
        super().__init__(lr=lr)
        self.body, self.head = nn.Linear(inputs, 20), nn.Linear(20, 10)
        self.seen, self.validated, self.states = [], [], []

    def forward(self, x):
        return self.head(self.body(x.flatten(1)).relu())

    def training_step(self, batch, batch_idx):
        self.seen.append(batch[0].clone())
        self.states.append((torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()))
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.validated.append(batch[0].clone())


def pictures(count=64, channels=1, side=8, seed=0):
    numbers = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, side, side, generator=numbers), torch.arange(count) % 10


def fit(make_trainer, model, batches, *callbacks, **arguments):
    trainer = make_trainer(*callbacks, **{"max_epochs": 1, **arguments})
    trainer.fit(model, batches)
    return trainer


def where_from(image, found, pad):
    """By what shift and mirror an image became what was found, trying all of them."""
    side = image.shape[-1]
    padded = torch.zeros(image.shape[0], side + 2 * pad, side + 2 * pad)
    padded[:, pad : pad + side, pad : pad + side] = image
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            crop = padded[:, top : top + side, left : left + side]
            for mirrored in (False, True):
                if torch.equal(v2.functional.horizontal_flip(crop) if mirrored else crop, found):
                    return top, left, mirrored
    return None


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 32), (1, 28)])
def test_every_image_is_a_shift_of_itself_by_draws_of_its_own(channels, side):
    images, _ = pictures(60, channels, side)
    found = shifted(images, 2, 0.5, np.random.default_rng(0))
    drawn = [where_from(*pair, 2) for pair in zip(images, found, strict=True)]
    assert None not in drawn
    assert len(set(drawn)) > 25  # 60 draws of 50 are 35 different ones on average


def test_every_shift_and_mirror_comes_as_often_as_any_other():
    image, _ = pictures(1)
    found = shifted(image.expand(4500, -1, -1, -1), 1, 0.5, np.random.default_rng(0))
    counts = Counter(where_from(image[0], one, 1) for one in found)
    assert len(counts) == 18
    # 250 each, with a standard deviation of 15.4: a chi square of 17 degrees, under 41 but once in a thousand
    assert sum((count - 250) ** 2 / 250 for count in counts.values()) < 41


def test_without_a_pad_and_a_mirror_nothing_changes():
    images, _ = pictures()
    assert torch.equal(shifted(images, 0, 0.0, np.random.default_rng(0)), images)
    assert torch.equal(shifted(images, 0, 1.0, np.random.default_rng(0)), images.flip(3))


def test_a_cutout_is_a_square_around_any_pixel_as_far_as_it_lies_on_the_image():
    """Of 8 pixels a square of 4 around pixel 0 to 7 begins at -2 to 5: it hides 2, 3, 4, 4, 4, 4, 4, 3 of them."""
    images = torch.ones(3000, 2, 8, 8)
    found = cut_out(images, 4, [0.25, 0.5], np.random.default_rng(0))
    hidden = found != 1
    assert torch.equal(hidden[:, 0], hidden[:, 1])
    assert set(found[:, 0][hidden[:, 0]].tolist()) == {0.25}
    assert set(found[:, 1][hidden[:, 1]].tolist()) == {0.5}
    rows, columns = hidden[:, 0].any(2), hidden[:, 0].any(1)
    assert torch.equal(hidden[:, 0], rows[:, :, None] & columns[:, None, :])
    for span in (rows, columns):
        counts = Counter(span.sum(1).tolist())
        assert set(counts) == {2, 3, 4}
        assert [counts[size] / 3000 for size in (2, 3, 4)] == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.03)
    assert torch.equal(images, torch.ones(3000, 2, 8, 8))


def test_a_transform_gets_each_image_alone(make_trainer):
    """As torchvision does it, image by image, from the seed that the callback draws for the first batch."""
    images, labels = pictures(20, 3, 32)
    model, callback = Seeing(3072), Augmentation(transform=v2.RandAugment(), seed=5)
    fit(make_trainer, model, Own((images, labels)), callback)
    seeds = np.random.SeedSequence((5, 0, 0, 0), spawn_key=(1,))
    with torch.random.fork_rng():
        torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0]))
        expected = torch.stack([v2.RandAugment()(image) for image in images])
    assert torch.equal(model.seen[0], expected)
    assert not torch.equal(expected, images)


EVERYTHING = {"pad": 2, "flip": 0.5, "cutout": 4, "transform": v2.RandAugment()}


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 32), (1, 28)])
def test_training_alone_sees_it_and_the_data_stay_as_they_are(channels, side, make_trainer):
    images, labels = pictures(16, channels, side)
    clean, memory = images.clone(), images.data_ptr()
    plain, model = (Seeing(channels * side * side) for _ in range(2))
    for one, callbacks in ((plain, []), (model, [Augmentation(**EVERYTHING)])):
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        trainer = make_trainer(*callbacks, max_epochs=2)
        trainer.fit(one, Own((images, labels)), Own((images, labels)))
    assert all(torch.equal(one, clean) for one in model.validated)
    assert torch.equal(images, clean)
    assert images.data_ptr() == memory
    assert not any(torch.equal(one, clean) for one in model.seen)
    assert not torch.equal(*model.seen)  # other draws in every epoch
    assert all(one.min() >= 0 and one.max() <= 1 for one in model.seen)
    for (own, *others), (own_before, *others_before) in zip(model.states, plain.states, strict=True):
        assert torch.equal(own, own_before)
        assert others == others_before


@pytest.mark.parametrize("images", [0, "picture"])
def test_images_are_found_where_they_are_in_a_batch(images, make_trainer):
    pixels, labels = pictures()

    class Named(Seeing):
        def training_step(self, batch, batch_idx):
            return super().training_step((batch[images], labels), batch_idx)

    model = Named()
    batch = (pixels, labels) if images == 0 else {"label": labels, "picture": pixels}
    fit(make_trainer, model, Own(batch), Augmentation(flip=1.0, images=images))
    assert torch.equal(model.seen[0], pixels.flip(3))


def test_augmented_images_are_attacked_and_both_are_taken_back(make_trainer):
    images, labels = pictures()
    clean = images.clone()
    models = [Seeing(lr=0.1) for _ in range(2)]
    fit(make_trainer, models[0], Own((images, labels)), Augmentation(pad=2, flip=0.5))
    both = [Augmentation(pad=2, flip=0.5), AdversarialTraining(0.1), GradualPruning(0.8)]
    fit(make_trainer, models[1], Own((images, labels)), *both, max_epochs=3)
    moved = (models[1].seen[0] - models[0].seen[0]).abs()
    assert 0.09 < float(moved.max()) <= 0.1 + 1e-6
    assert torch.equal(images, clean)
    assert not [name for name in vars(images) if "lightning_sparse" in name]


def test_an_attack_before_the_augmentation_is_refused_with_the_order_to_write(make_trainer):
    both = [AdversarialTraining(0.1), Augmentation(pad=1)]
    with pytest.raises(SparsityError, match=r"write callbacks=\[Augmentation\(\.\.\.\), AdversarialTraining"):
        fit(make_trainer, Seeing(), Own(pictures()), *both)
    fit(make_trainer, Seeing(), Own(pictures()), *both[::-1])


def test_scores_of_training_images_are_those_of_the_images_as_they_are(make_trainer):
    """The weights do not move, so that only what is looked at could make a difference."""
    found = []
    for callbacks in ([], [Augmentation(**EVERYTHING)]):
        data = ImageData("digits", shape=(1, 8, 8), classes=10, mean=[0.3], std=[0.4], images=200)
        scores = ExampleScores(images=100)
        make_trainer(*callbacks, scores, max_epochs=2).fit(Seeing(), datamodule=data)
        found.append(scores.measured().arrays)
    assert found[0].keys() == found[1].keys()
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_it_keeps_the_kind_of_number_and_the_strides(precision, make_trainer):
    images, labels = pictures(16, 3, 32)
    images = images.to(memory_format=torch.channels_last)
    model = Seeing(3072)
    strides = images.stride()

    def checked(batch, batch_idx, step=model.training_step):
        assert batch[0].stride() == strides
        return step(batch, batch_idx)

    model.training_step = checked
    fit(make_trainer, model, Own((images, labels)), Augmentation(**EVERYTHING), precision=precision)
    assert model.seen[0].dtype == {"b": torch.bfloat16, "6": torch.float64}.get(precision[0]) or "mixed" in precision


def made():
    return [
        Augmentation(**EVERYTHING, fill=0.3, seed=3),
        AdversarialTraining(0.05, seed=3),
        GradualPruning(0.8, every=2),
    ]


@pytest.mark.filterwarnings("ignore")
def test_it_goes_on_bit_for_bit_from_within_an_epoch(tmp_path, often):  # noqa: F811
    how = {"workers": 1}
    script.fit(tmp_path, "whole.ckpt", *made(), **how)
    (tmp_path / "training.ckpt").unlink()
    with pytest.raises(KeyError, match="stopped"):
        script.fit(tmp_path, "end.ckpt", *made(), Stop((1, 7)), **how)
    script.fit(tmp_path, "end.ckpt", *made(), **how)
    same_end(tmp_path)


def test_a_run_resumed_with_another_augmentation_is_refused(make_trainer, tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="end")
    batches = Own(pictures())
    fit(make_trainer, Seeing(), batches, Augmentation(transform=v2.RandAugment()), keep, enable_checkpointing=True)
    for other, says in (
        (Augmentation(pad=1, transform=v2.RandAugment()), r"pad=1, and the checkpoint was trained with pad=0"),
        (Augmentation(transform=v2.RandAugment(magnitude=5)), r"transform='RandAugment\(.*resume with the same"),
    ):
        with pytest.raises(SparsityError, match=says):
            make_trainer(other).fit(Seeing(), batches, ckpt_path=tmp_path / "end.ckpt", **SAFE)


class OnRanks(Seeing):
    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_train_end(self):
        torch.save(self.seen, self.folder / f"{self.trainer.global_rank}.pt")


def test_ranks_draw_for_themselves(make_trainer, tmp_path):
    """Both get the same images, so that only the draws can differ."""
    images, labels = pictures(32)
    data = TensorDataset(images.repeat_interleave(2, 0), labels.repeat_interleave(2))
    trainer = make_trainer(Augmentation(pad=2, flip=0.5), devices=2, strategy="ddp_spawn", max_epochs=1)
    trainer.fit(OnRanks(tmp_path), DataLoader(data, batch_size=16))
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert len(first) == len(second) == 2
    assert not any(torch.equal(one, two) for one, two in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pad": -1}, r"pad=-1 is not an integer of at least 0: write 4"),
        ({"flip": 2}, r"flip=2 is not a share in \[0, 1\]"),
        ({"cutout": 2.5}, r"cutout=2\.5 is not an integer of at least 0: write 16"),
        ({"fill": "grey"}, r"fill='grey' is neither a number nor a list .*write fill=0\.5"),
        ({"fill": float("nan")}, r"fill=nan is not finite"),
        ({"transform": lambda image: image}, r"transform=<function .* write v2\.RandAugment\(\)"),
        ({"images": None}, r"images=None is no place in a batch: write images=0"),
        ({"seed": -1}, r"seed=-1 is not an integer"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments, message):
    with pytest.raises(SparsityError, match=message):
        Augmentation(**arguments)


X, Y = pictures(8)


@pytest.mark.parametrize(
    ("batch", "arguments", "message"),
    [
        ((torch.ones(8, 5, dtype=torch.long), Y), {"pad": 1}, r"torch\.int64 of shape \(8, 5\), no images .*augment=none"),
        (((X * 255).byte(), Y), {"pad": 1}, r"a batch holds torch\.uint8 .*of floats: write images="),
        ((X.flatten(1), Y), {"flip": 0.5}, r"torch\.float32 of shape \(8, 64\), no images"),
        ((X, Y), {"pad": 8}, r"pad=8 would shift images of 8x8 out of sight: write pad=1"),
        ((X, Y), {"cutout": 2, "fill": [0.1, 0.2]}, r"fill holds 2 numbers, and images have 1 channels"),
        ((X * 2 - 1, Y), {"transform": v2.RandAugment()}, r"takes pixels in \[0, 1\], .*normalise inside the model"),
        ((X, Y), {"transform": v2.Resize(4)}, r"=Resize made an image of shape \(1, 4, 4\) of one of shape \(1, 8, 8\)"),
        ({"x": X}, {"pad": 1}, r"images=0 finds nothing in a batch that is a dict with keys 'x'"),
    ],
)  # fmt: skip
def test_a_batch_that_cannot_be_augmented_is_refused_at_the_first(batch, arguments, message, make_trainer):
    with pytest.raises(SparsityError, match=message):
        fit(make_trainer, Seeing(), Own(batch), Augmentation(**arguments))


def test_normalised_images_are_shifted_onto_their_mean(make_trainer):
    model = Seeing()
    fit(make_trainer, model, Own((X * 4 - 2, Y)), Augmentation(pad=3, cutout=3))
    assert float(model.seen[0].min()) < -1.5


def test_texts_are_refused_before_training(make_trainer):
    data = TextData(classes=10, length=8)
    with pytest.raises(SparsityError, match=r"texts cannot be shifted .*augment=none"):
        make_trainer(Augmentation(pad=1)).fit(Seeing(), datamodule=data)
