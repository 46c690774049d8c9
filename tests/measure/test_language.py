"""What a language model knows, against numbers by hand."""

import math

import pytest
import torch
from torch import nn

from lightning_sparse import SparsityError
from lightning_sparse.measure import measure_language
from lightning_sparse.models import tiny_gpt


class Fixed(nn.Module):
    """Says the same of every next token: 2 with a half, 3 and 4 with a quarter each."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.0, 0.0, 0.5, 0.25, 0.25]).clamp_min(1e-30).log())

    def forward(self, texts):
        return self.weight.expand(*texts.shape, 5)


def test_bits_perplexity_and_accuracy_by_hand():
    texts = torch.tensor([[2, 2, 3, 0], [4, 2, 2, 2]])  # foretold: 2, 3; 2, 2, 2
    found = measure_language(Fixed(), (texts, torch.tensor([0, 0])))
    rows = {row.metric: row for row in found.records}
    assert rows["language_bits"].value == pytest.approx((1 + 2 + 3) / 5)
    assert rows["language_perplexity"].value == pytest.approx(2**1.2)
    assert rows["clean_accuracy"].value == pytest.approx(4 / 5)
    assert rows["clean_cross_entropy"].value == pytest.approx(1.2 * math.log(2))
    assert found.arrays["tokens"].tolist() == [2, 3]
    # A text's bits less 1.2 a token are 3 - 2.4 and 3 - 3.6: their deviation over 2.5 tokens and the root of two texts.
    error = math.sqrt(0.6**2 + 0.6**2) / (2.5 * math.sqrt(2))
    assert rows["language_bits"].high - 1.2 == pytest.approx(1.959964 * error)


def test_it_is_the_loss_of_the_texts_one_by_one():
    torch.manual_seed(0)
    net, texts = tiny_gpt(30, length=7), torch.randint(2, 30, (5, 7))
    texts[1, 4:] = 0
    found = measure_language(net, (texts, torch.zeros(5, dtype=torch.long)), batch_size=2)
    nats, count = 0.0, 0
    for text in texts:
        text = text[text > 0]
        for place in range(1, len(text)):
            nats -= net(text[None, :place])[0, -1].log_softmax(0)[text[place]].item()
            count += 1
    assert found.records[3].value == pytest.approx(nats / count, rel=1e-5)


@pytest.mark.parametrize(
    ("model", "texts", "message"),
    [
        (Fixed(), torch.rand(2, 1, 4, 4), "is measured on texts of two tokens or more"),
        (Fixed(), torch.tensor([[2], [3]]), "two tokens or more"),
        (Fixed(), torch.tensor([[2, 0], [3, 4]]), "leave out shorter ones"),
        (Fixed(), torch.tensor([[2, 7]] * 2), "texts reach token 7, and the model foretells 5"),
        (
            nn.Embedding(9, 3).requires_grad_(),
            torch.tensor([[2, 7]] * 2),
            "texts reach token 7, and the model foretells 3",
        ),
        (
            nn.Sequential(nn.Embedding(9, 3), nn.Flatten()),
            torch.tensor([[2, 7]] * 2),
            r"the model gives \(2, 6\) for texts",
        ),
    ],
)
def test_what_is_no_language_model_or_no_text_is_refused(model, texts, message):
    with pytest.raises(SparsityError, match=message):
        measure_language(model, (texts, torch.zeros(2, dtype=torch.long)))
