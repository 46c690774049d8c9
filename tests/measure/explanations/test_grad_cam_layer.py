"""Grad-CAM on a chosen layer: convolutions, and tokens of vision transformers as a grid."""

import pytest
import torch
from torch import nn

from advised import call_in
from lightning_sparse import SparsityError
from lightning_sparse.measure import as_classifier, attribute, max_sensitivity, measure_saliency
from lightning_sparse.measure.explanations.grad_cam_layer import map_layer
from lightning_sparse.models.networks import small_cnn


def timm_vit(images, labels, **settings):
    """A small transformer with a class token, trained for a moment on digits."""
    timm = pytest.importorskip("timm.models.vision_transformer")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10, "embed_dim": 32, "num_heads": 4}
        model = timm.VisionTransformer(**sizes, depth=3, **settings)
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(20):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model


@pytest.fixture(scope="module")
def vit(digits):
    return timm_vit(digits.images, digits.labels)


class Grey(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.expand(-1, 3, -1, -1))


def test_of_a_transformer_it_is_the_last_blocks_norm(vit, digits):
    found = map_layer(as_classifier(vit.eval()), digits.images[:1])
    assert (found.name, found.grid, found.leading) == ("blocks.2.norm1", (4, 4), 1)


def test_register_tokens_are_left_out_and_without_a_class_token_nothing_is(digits):
    registers = timm_vit(digits.images, digits.labels, reg_tokens=4)
    assert map_layer(registers.eval(), digits.images[:1])[2:] == ((4, 4), 5)
    pooled = timm_vit(digits.images, digits.labels, class_token=False, global_pool="avg")
    assert map_layer(pooled.eval(), digits.images[:1])[2:] == ((4, 4), 0)


def test_torchvisions_transformers(digits):
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    vit = models.VisionTransformer(8, 2, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=16, num_classes=10)
    nn.init.normal_(vit.heads.head.weight)  # they begin at zero
    found = map_layer(Grey(vit).eval(), digits.images[:1])
    assert (found.name, found.grid) == ("inner.encoder.layers.encoder_layer_1.ln_1", (4, 4))
    swin = models.SwinTransformer([1, 1], 16, [1, 1], [2, 2], [2, 2], num_classes=10)
    found = map_layer(Grey(swin).eval(), digits.images[:1])
    assert (found.name, found.grid) == ("inner.norm", (4, 4))


def test_of_a_convolutional_network_it_is_the_last_convolution_even_between_norms(digits):
    assert map_layer(small_cnn((1, 8, 8), 10).eval(), digits.images[:1]).name == "3"
    convnext = pytest.importorskip("torchvision.models.convnext")
    model = Grey(convnext.ConvNeXt([convnext.CNBlockConfig(16, 16, 2)], num_classes=10))
    assert map_layer(model.eval(), digits.images[:1]).name == "inner.features.1.1.block.0"


def test_the_map_of_tokens_equals_autograd(vit, digits):
    """Weights are mean gradients over the 16 patches, of the sum over channels what is positive, stretched 4x4 to 8x8."""
    images, labels = digits.images[:6], digits.labels[:6]
    maps, _ = attribute(vit, images, labels, "grad_cam", layer="blocks.1.norm1")
    vit.eval()
    hidden = vit.blocks[0](vit._pos_embed(vit.patch_embed(images)))
    tokens = vit.blocks[1].norm1(hidden).detach().requires_grad_(True)
    after = hidden + vit.blocks[1].attn(tokens)
    after = after + vit.blocks[1].mlp(vit.blocks[1].norm2(after))
    score = vit.forward_head(vit.norm(vit.blocks[2](after))).gather(1, labels[:, None]).sum()
    (slope,) = torch.autograd.grad(score, tokens)
    coarse = (slope[:, 1:].mean(1, keepdim=True) * tokens[:, 1:]).sum(2).relu().view(6, 1, 4, 4)
    expected = nn.functional.interpolate(coarse, (8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(maps, expected[:, 0].detach(), rtol=1e-3, atol=1e-6)
    assert maps.max() > 0


def test_tokens_that_come_from_a_convolution_have_its_map(digits):
    """The same numbers as captum's on (n, C, H, W), moved to the end and called tokens."""

    class Tokens(nn.Sequential):
        def forward(self, x):
            return self[2](self[1](self[0](x).flatten(2).mT).mT.flatten(1))

    torch.manual_seed(0)
    model = Tokens(nn.Conv2d(1, 4, 3), nn.Identity(), nn.Linear(144, 10))
    of_tokens, of_convolution = (
        attribute(model, digits.images[:4], digits.labels[:4], "grad_cam", layer=layer)[0] for layer in ("1", "0")
    )
    torch.testing.assert_close(of_tokens, of_convolution)


def test_an_image_that_is_not_square_has_a_grid_of_its_shape():
    tokens = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(1), nn.Unflatten(1, (32, 1)), nn.Flatten(1), nn.Linear(32, 2))
    assert map_layer(tokens.eval(), torch.rand(1, 1, 8, 16), "2")[2:] == ((4, 8), 0)


@pytest.mark.parametrize("layer", [None, "blocks.0.norm1", "patch_embed.proj"])
def test_the_rows_name_the_layer(vit, digits, layer):
    found = measure_saliency(
        vit,
        (digits.images[:8], digits.labels[:8]),
        methods=["gradient", "grad_cam"],
        measures=["gini", "max_sensitivity", "randomisation"],
        layer=layer,
    )
    rows = [row for row in found.records if row.attribution == "grad_cam"]
    assert len(rows) == 4
    assert all(row.detail.endswith(f"; layer {layer or 'blocks.2.norm1'}") for row in rows)
    assert not any("layer b" in row.detail for row in found.records if row.attribution == "gradient")
    maps, _ = attribute(vit, digits.images[:8], digits.labels[:8], "grad_cam", layer=layer)
    assert torch.equal(torch.from_numpy(found.arrays["grad_cam"]), maps)


def test_another_layer_gives_other_numbers(vit, digits):
    images, labels = digits.images[:8], digits.labels[:8]
    first, last = (
        max_sensitivity(vit, images, labels, "grad_cam", layer=layer) for layer in ("blocks.0.norm1", "blocks.2.norm1")
    )
    assert not (first == last).any()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("blocks.3.norm1", r"layer='blocks.3.norm1' is no layer of the model: did you mean 'blocks.2.norm1'"),
        ("zzzz", r"layer='zzzz' is no layer of the model: print\(model\) shows them"),
        ("", "layer='' is no layer"),
        (3, "layer=3 is no layer"),
        ("head", r"layer='head' gives \(1, 10\), which is no map of the image"),
    ],
)
def test_what_gives_no_map_is_refused(vit, digits, layer, message):
    for call in (
        lambda: attribute(vit, digits.images, digits.labels, "grad_cam", layer=layer),
        lambda: measure_saliency(vit, (digits.images, digits.labels), methods=["grad_cam"], layer=layer),
    ):
        with pytest.raises(SparsityError, match=message):
            call()


def test_a_layer_that_runs_twice_is_refused(digits):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(64, 10)

        def forward(self, x):
            return self.head(self.conv(self.conv(x)).flatten(1))

    with pytest.raises(SparsityError, match="layer='conv' runs 2 times in a forward pass"):
        attribute(Twice(), digits.images, digits.labels, "grad_cam", layer="conv")


def test_a_layer_for_a_method_that_has_none_is_refused(vit, digits):
    with pytest.raises(SparsityError, match=r"layer='head' is for 'grad_cam', and method='gradient' has none"):
        attribute(vit, digits.images, digits.labels, "gradient", layer="head")
    with pytest.raises(SparsityError, match=r"layer='head' is for 'grad_cam', which is not in methods"):
        measure_saliency(vit, (digits.images, digits.labels), methods=["gradient"], layer="head")


class Prepared(nn.Module):
    """Pixels are prepared without a gradient."""

    def __init__(self, detached=False):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
        self.detached = detached

    def forward(self, x):
        with torch.no_grad():
            x = (x > 0.5).float()
        return self.net(x).detach() if self.detached else self.net(x)


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "smoothgrad"])
def test_without_a_gradient_to_the_pixels_it_is_refused_and_what_the_message_says_is_measured(digits, method):
    model, data = Prepared(), (digits.images[:8], digits.labels[:8])
    with pytest.raises(SparsityError, match="the logits have no gradient in the pixels") as error:
        measure_saliency(model, data, methods=[method], measures=["gini"])
    with pytest.raises(SparsityError, match="the logits have no gradient in the pixels"):
        attribute(model, *data, method)
    written = call_in(error, "as_classifier(model, ").replace("...", "model.net(x)")
    assert measure_saliency(eval(written, globals() | locals()), data, methods=[method], measures=["gini"]).records


def test_grad_cam_needs_the_gradient_in_its_layer_alone(digits):
    data = digits.images[:8], digits.labels[:8]
    assert measure_saliency(Prepared(), data, methods=["grad_cam"], measures=["gini"]).records[-1].n == 8
    with pytest.raises(SparsityError, match="no gradient in the layer of 'grad_cam'"):
        measure_saliency(Prepared(detached=True), data, methods=["grad_cam"], measures=["gini"])
