"""Explanations of texts: numbers of words worked out by hand, and padding, which is no word."""

import itertools
import math

import numpy as np
import pytest
import torch
from captum.attr import LayerIntegratedGradients
from torch import nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import as_classifier, attribute, measure_saliency
from lightning_sparse.measure.explanations.agreement import agreement_records, rank_agreement, top_agreement
from lightning_sparse.measure.explanations.explained import explained, moves
from lightning_sparse.measure.explanations.faithfulness import insertion_deletion_gap
from lightning_sparse.measure.explanations.maps import complexity, gini
from lightning_sparse.measure.explanations.sensitivity import max_sensitivity
from lightning_sparse.models import bag_of_words, tiny_transformer

METHODS = ("gradient", "integrated_gradients", "smoothgrad")
VECTORS = torch.tensor([[9.0, 9.0], [1.0, -1.0], [2.0, 0.0], [0.0, 3.0], [-1.0, 4.0]])
WEIGHT = torch.tensor([[3.0, 4.0], [1.0, -2.0]])
TEXT, LABEL = torch.tensor([[2, 4, 3, 0, 0]]), torch.tensor([1])


class LinearBag(nn.Module):
    """The mean of the words' vectors times a weight."""

    def __init__(self):
        super().__init__()
        self.words, self.classes = nn.Embedding.from_pretrained(VECTORS, freeze=False), nn.Linear(2, 2, bias=False)
        self.classes.weight.data = WEIGHT.clone()

    def forward(self, tokens):
        there = (tokens != 0).unsqueeze(2)
        return self.classes((self.words(tokens) * there).sum(1) / there.sum(1))


@pytest.fixture
def transformer():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = tiny_transformer(30, 3, length=32, dimensions=8, heads=2, layers=1)
        for parameter in net.parameters():
            parameter.data = 2 * parameter.data + 0.1 * torch.randn_like(parameter)
    return net


def texts(n=12, length=7, words=30):
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, words, (n, length), generator=draw)
    for text, of in zip(tokens, torch.randint(2, length + 1, (n,), generator=draw), strict=True):
        text[of:] = 0
    return tokens, torch.arange(n) % 3


def words_of(maps):
    """The map of the first text, without its padding."""
    return maps[0, 0, :3].numpy()


def test_gradient_of_a_linear_bag_is_the_length_of_the_weight_over_the_words():
    maps, deltas = attribute(LinearBag(), TEXT, LABEL, "gradient")
    assert maps.shape == (1, 1, 5)
    np.testing.assert_allclose(words_of(maps), [math.sqrt(5) / 3] * 3, rtol=1e-6)
    assert maps[0, 0, 3:].isnan().all()
    assert deltas.isnan().all()


def test_integrated_gradients_of_a_linear_bag_are_exact():
    maps, deltas = attribute(LinearBag(), TEXT, LABEL, "integrated_gradients")
    # (v - u) . (1, -2) / 3 for the words 2, 4 and 3, where u = (1, -1) is the unknown word.
    np.testing.assert_allclose(words_of(maps), [1 / 3, 12 / 3, 9 / 3], rtol=1e-5)
    assert maps[0, 0, 3:].isnan().all()
    assert abs(float(deltas[0])) < 1e-5


def test_the_gap_by_enumeration_of_what_is_left_of_three_words():
    def probability(kept):
        vectors = [VECTORS[TEXT[0, place]] if place in kept else VECTORS[1] for place in range(3)]
        logits = WEIGHT @ (sum(vectors) / 3) / 1.5
        return float(torch.softmax(logits.double(), 0)[1])

    gaps = []
    for order in itertools.permutations(range(3)):
        maps = torch.full((1, 1, 5), math.nan)
        for rank, place in enumerate(order):
            maps[0, 0, place] = 3.0 - rank
        (found,) = insertion_deletion_gap(LinearBag(), TEXT, LABEL, maps, temperature=1.5)
        inserted = [probability(order[:count]) for count in (1, 2)]
        deleted = [probability(order[count:]) for count in (1, 2)]
        assert found == pytest.approx((sum(inserted) - sum(deleted)) / 3, abs=1e-6)
        gaps.append(found)
    assert max(gaps) > 0.05
    assert sum(gaps) == pytest.approx(0, abs=1e-7)  # over all orders: a random one has none
    alone = insertion_deletion_gap(LinearBag(), TEXT[:, :1], LABEL, torch.ones(1, 1, 1), temperature=1.5)
    assert np.isnan(alone).all()  # one word has no order


def test_integrated_gradients_are_those_of_captum_on_the_embedding(transformer):
    tokens, labels = texts()
    maps, deltas = attribute(transformer, tokens, labels, "integrated_gradients")
    unknown = torch.where(tokens == 0, 0, 1)
    layer = LayerIntegratedGradients(transformer.eval(), transformer.words)
    expected, missed = layer.attribute(
        tokens, unknown, target=labels, n_steps=50, internal_batch_size=256, return_convergence_delta=True
    )
    expected = expected.sum(2).abs().masked_fill(tokens == 0, math.nan)
    np.testing.assert_allclose(maps[:, 0], expected.detach(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(deltas, missed, atol=1e-4)
    assert maps.nan_to_num().max() > 0.1


def test_gradient_and_smoothgrad_are_means_of_autograd_in_the_vectors(transformer):
    tokens, labels = texts(4)
    transformer.eval()
    vectors = transformer.words.weight.detach()
    noise = moves(explained(transformer, tokens), 25, 7, torch.Tensor.normal_, 0.0, 0.15)
    component = vectors[1:].norm(dim=1).mean() / math.sqrt(8)
    assert float(noise.std()) == pytest.approx(0.15 * float(component), rel=0.05)
    for method, shifts in (("gradient", torch.zeros(1, 8, 1, 7)), ("smoothgrad", noise)):
        maps, _ = attribute(transformer, tokens, labels, method, seed=7)
        slopes = torch.zeros(4, 7, 8)
        for shift in shifts:
            own = vectors[tokens] + shift[:, 0].T * (tokens != 0).unsqueeze(2)
            leaf = own.clone().requires_grad_(True)
            hook = transformer.words.register_forward_hook(lambda *_, leaf=leaf: leaf)
            logits = transformer(tokens)
            hook.remove()
            slopes += torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), leaf)[0] / len(shifts)
        expected = slopes.norm(dim=2).masked_fill(tokens == 0, math.nan)
        np.testing.assert_allclose(maps[:, 0], expected, rtol=1e-4, atol=1e-6)


def test_padding_changes_no_number(transformer):
    tokens, labels = texts()
    longer = torch.cat([tokens, torch.zeros(len(tokens), 6, dtype=torch.long)], dim=1)
    short, long = (measure_saliency(transformer, (given, labels)) for given in (tokens, longer))
    for name, values in short.arrays.items():
        if name in ("images", *METHODS):
            assert long.arrays[name].shape[-1] == values.shape[-1] + 6
            assert not np.nan_to_num(long.arrays[name][..., -6:]).any()
            np.testing.assert_allclose(long.arrays[name][..., :-6], values, rtol=1e-3, atol=1e-5)
        else:
            np.testing.assert_allclose(long.arrays[name], values, rtol=1e-3, atol=1e-5)
    assert [row.metric for row in short.records] == [row.metric for row in long.records]
    assert {row.n for row in short.records} == {12}


def test_a_model_that_reads_padding_is_not_moved_there():
    """Its logits depend on the vector of padding, but that is no word to be blamed or moved."""
    net = nn.Sequential(nn.Embedding(6, 2), nn.Flatten(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    tokens, label = torch.tensor([[3, 5, 0, 0]]), torch.tensor([0])
    at = explained(as_classifier(net), tokens)
    far = at.inputs.clone()
    far[..., 2:] += 100
    torch.testing.assert_close(at.forward(far, *at.extra), net(tokens))
    for method in METHODS:
        assert attribute(net, tokens, label, method)[0].isnan().tolist() == [[[False, False, True, True]]]


def test_moves_change_the_map_of_a_linear_bag_in_nothing_but_integrated_gradients():
    for method in ("gradient", "smoothgrad"):
        assert max_sensitivity(LinearBag(), TEXT, LABEL, method)[0] == pytest.approx(0, abs=1e-6)
    (found,) = max_sensitivity(LinearBag(), TEXT, LABEL, "integrated_gradients", seed=3)
    shifts = moves(explained(LinearBag(), TEXT), 10, 4, torch.Tensor.uniform_, -0.02, 0.02)
    changes = np.einsum("scw,c->sw", shifts[:, :, 0, :3].numpy(), [1.0, -2.0]) / 3
    assert found == pytest.approx(np.linalg.norm(changes, axis=1).max() / np.linalg.norm([1 / 3, 4, 3]), rel=1e-3)
    component = VECTORS[1:].norm(dim=1).mean() / math.sqrt(2)
    assert 0.015 * component < shifts.abs().max() <= 0.02 * component


def test_numbers_of_maps_are_those_of_the_words_alone():
    draw = np.random.default_rng(0)
    a, b = draw.random((2, 3, 1, 30))
    padded_a, padded_b = (np.concatenate([maps, np.full((3, 1, 4), np.nan)], axis=2) for maps in (a, b))
    for measured in (gini, complexity):
        np.testing.assert_array_equal(measured(padded_a), measured(a))
    for compared in (rank_agreement, top_agreement):
        np.testing.assert_allclose(compared(padded_a, padded_b), compared(a, b), atol=1e-12)
        np.testing.assert_allclose(compared(padded_a, padded_a), 1)
    assert [row.n for row in agreement_records(padded_a, padded_b, "gradient")] == [3, 3]
    nothing = np.full((3, 1, 4), np.nan)  # texts without a word
    assert all(
        np.isnan(found).all() for found in (gini(nothing), complexity(nothing), rank_agreement(nothing, nothing))
    )


def test_of_a_text_of_thirty_words_three_are_the_top_tenth():
    a = np.arange(40.0)[None, None]
    b = a.copy()
    b[..., [29, 0]] = b[..., [0, 29]]
    a[..., 30:], b[..., 30:] = np.nan, np.nan
    assert top_agreement(a, b)[0] == pytest.approx(2 / 4)  # 27 and 28 are in both; 29 and 26 in one each


def test_records_of_texts():
    net = bag_of_words(30, 3, dimensions=8, hidden=8)
    found = measure_saliency(net, texts(), methods=[*METHODS, "grad_cam"])
    assert found.arrays["images"].shape == (12, 1, 1, 7)
    assert found.arrays["images"].dtype == np.int64
    by_chart = {row.chart: row for row in found.records}
    assert "saliency/input/gini" not in by_chart
    # The words of a bag stand in one mean: the gradient cannot tell them apart.
    assert by_chart["saliency/gradient/gini"].value == pytest.approx(0, abs=1e-6)
    assert by_chart["saliency/gradient/insertion_deletion_gap"].n == 0
    assert by_chart["saliency/integrated_gradients/convergence_delta"].n == 12
    assert "the unknown word as baseline" in by_chart["saliency/integrated_gradients/convergence_delta"].detail
    assert "L2 norm of its gradient" in by_chart["saliency/gradient/gini"].detail
    assert math.isnan(by_chart["saliency/grad_cam/gini"].value)
    assert "of images" in by_chart["saliency/grad_cam/gini"].detail


def test_what_is_for_images_is_refused():
    tokens, labels = texts()
    net = bag_of_words(30, 3)
    with pytest.raises(SparsityError, match="maps of 'grad_cam' are of images"):
        attribute(net, tokens, labels, "grad_cam")
    with pytest.raises(SparsityError, match="maps of 'grad_cam' are of images"):
        measure_saliency(net, (tokens, labels), methods=["grad_cam"], layer="hidden")
    with pytest.raises(SparsityError, match="other masks are of images"):
        measure_saliency(net, (tokens, labels), truth={"verb": torch.ones(12, 1, 7, dtype=torch.bool)})
    with pytest.raises(SparsityError, match=r"not \(12, 1, 7\)"):
        insertion_deletion_gap(net, tokens, labels, torch.ones(12, 7), temperature=1.0)
