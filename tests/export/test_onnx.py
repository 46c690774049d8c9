"""Files for other runtimes give what the network gives, keep its zeros, and are put in place only if they do."""

import copy
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from advised import call_in
from export.sparse_networks import pruned
from lightning_sparse import SparsityError
from lightning_sparse.export import CSRLinear, to_exported_program, to_onnx
from lightning_sparse.models import lenet5
from networks import Lstm, Transformer, UNet
from settings import digits


def small():
    torch.manual_seed(0)
    return pruned(nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)), 0.3)


def run(path, *arguments):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return session.run(None, {name: x.numpy() for name, x in zip(names, arguments, strict=True)})


def zeros_of(path):
    """Zeros of all tensors of two or more dimensions in a file, counted apart from the library."""
    held = [onnx.numpy_helper.to_array(each) for each in onnx.load(str(path)).graph.initializer]
    return sum(int((each == 0).sum()) for each in held if each.ndim >= 2)


def vit():
    timm = pytest.importorskip("timm")
    return timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32)


def mobilenet():
    from torchvision.models.mobilenetv3 import InvertedResidual, InvertedResidualConfig

    config = InvertedResidualConfig(8, 3, 16, 8, True, "HS", 1, 1, 1.0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), InvertedResidual(config, nn.BatchNorm2d), nn.Flatten(), nn.LazyLinear(4))


NETWORKS = {
    "lenet5": (lambda: lenet5((1, 28, 28), 10), torch.rand(4, 1, 28, 28)),
    "lstm": (Lstm, torch.rand(4, 64)),  # its weights get a dimension more
    "unet": (UNet, torch.rand(4, 1, 8, 8)),  # its BatchNorms are folded into convolutions
    "transformer": (Transformer, torch.rand(4, 64)),
    "vit": (vit, torch.rand(4, 3, 32, 32)),  # its weights are turned
    "mobilenet": (mobilenet, torch.rand(4, 3, 8, 8)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_gives_the_same_with_the_same_zeros(name, tmp_path, capfd):
    make, x = NETWORKS[name]
    torch.manual_seed(0)
    model = make()
    model.eval()(x)  # lazy layers are made now
    model = pruned(model, 0.3).train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    found = to_onnx(model, x, tmp_path / "net.onnx")
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    assert found.bytes == (tmp_path / "net.onnx").stat().st_size
    assert found.difference <= 1e-4
    model.eval()
    for n in (1, 7):
        batch = torch.rand(n, *x.shape[1:])
        with torch.no_grad():
            expected = model(batch).numpy()
        np.testing.assert_allclose(run(found.path, batch)[0], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    weights = {name: weight for name, weight in model.named_parameters() if weight.dim() >= 2}
    assert found.zeros == {name: int((weight == 0).sum()) for name, weight in weights.items()}
    assert found.weights == {name: weight.numel() for name, weight in weights.items()}
    assert zeros_of(found.path) >= sum(found.zeros.values())


def test_int8_keeps_zeros_and_says_what_it_did_to_the_accuracy(tmp_path):
    images, labels = digits().tensors
    images = images.view(-1, 64)
    torch.manual_seed(0)
    model = pruned(nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10)), 0.5)
    masks = [weight != 0 for weight in model.parameters()]
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        with torch.no_grad():
            for weight, mask in zip(model.parameters(), masks, strict=True):
                weight.mul_(mask)
    plain = to_onnx(model, images[:4], tmp_path / "plain.onnx")
    flat = to_onnx(model, images[:4], tmp_path / "flat.onnx", int8=(images, labels))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images.view(-1, 1, 8, 8), labels), 100)
    model = nn.Sequential(nn.Flatten(), *model)
    found = to_onnx(model, images[:4].view(-1, 1, 8, 8), tmp_path / "net.onnx", int8=loader)
    right = (model(images).argmax(1) == labels).float().mean().item()
    assert right > 0.9
    assert found.accuracy == pytest.approx(right, abs=1e-6)
    assert (flat.accuracy, flat.int8_accuracy) == (found.accuracy, found.int8_accuracy)
    eighth = run(found.path, images.view(-1, 1, 8, 8))[0].argmax(1) == labels.numpy()
    assert found.int8_accuracy == pytest.approx(eighth.mean(), abs=1e-6)
    assert abs(found.int8_accuracy - right) < 0.02
    assert 0 < found.difference < 0.1
    held = {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(str(found.path)).graph.initializer}
    for name, weight in (("1.weight", model[1].weight), ("3.weight", model[3].weight)):
        eight = held[f"{name}_quantized"]
        assert eight.dtype == np.int8
        assert not eight[(weight == 0).numpy()].any()
        assert found.zeros[name] == (eight == 0).sum() >= int((weight == 0).sum())
    assert found.bytes < 0.5 * plain.bytes
    lines = found.table().splitlines()
    assert lines[1].split()[:3] == ["1.weight", "6400", str(found.zeros["1.weight"])]
    assert lines[-1] == f"accuracy on the calibration data: {right:.4f}, in int8 {found.int8_accuracy:.4f}"


def test_several_inputs_and_outputs_and_integers(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.body, self.unused = nn.Embedding(9, 4), nn.Linear(4, 3), nn.Linear(2, 2)

        def forward(self, tokens, scale):
            x = self.body(self.embedding(tokens)) * scale[:, None]
            return {"x": x, "first": (x[:, 0], tokens.argmax(1))}

    model, tokens, scale = pruned(Two(), 0.3), torch.randint(9, (4, 5)), torch.rand(4, 1)
    found = to_onnx(model, (tokens, scale), tmp_path / "net.onnx")
    assert set(found.zeros) == {"embedding.weight", "body.weight"}  # what is not used is not in the file
    program = to_exported_program(model, (tokens, scale), tmp_path / "net.pt2")
    expected = model(tokens[:2], scale[:2])
    for output in (program.module(), torch.export.load(tmp_path / "net.pt2").module()):
        torch.testing.assert_close(output(tokens[:2], scale[:2]), expected)
    torch.testing.assert_close(torch.from_numpy(run(found.path, tokens[:2], scale[:2])[0]), expected["x"].detach())
    with pytest.raises(SparsityError, match="int8 is for models of one input, and the example has 2"):
        to_onnx(model, (tokens, scale), tmp_path / "net.onnx", int8=tokens)


def test_a_program_keeps_its_weights_and_takes_any_batch(tmp_path):
    model = small().train()
    program = to_exported_program(model, torch.rand(4, 1, 8, 8), str(tmp_path / "net.pt2"))
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt2"]
    assert model.training
    for name, weight in model.named_parameters():
        assert torch.equal(program.state_dict[name], weight)
    for n in (1, 9):
        x = torch.rand(n, 1, 8, 8)
        torch.testing.assert_close(program.module()(x), model(x))


class Strange(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.body, self.strange = nn.Linear(64, 4), forward

    def forward(self, x):
        return self.strange(self.body(x.flatten(1)))


@pytest.mark.parametrize("export", [to_onnx, to_exported_program])
@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Strange(lambda x: [x, "a"]), "gives a str among its outputs"),
        (Strange(lambda x: x.relu() if x.sum() > 0 else x), "cannot be exported for batches of any size"),
        (Strange(lambda x: x.view(4, 4)), "cannot be called with 3 rows of the example"),
        (Strange(lambda x: x.numpy()), "gives a ndarray among its outputs"),
        (nn.Sequential(nn.Flatten(), CSRLinear(torch.ones(2, 64))), "give the network from before sparsify"),
        (torch.compile(small()), "is compiled"),
        (nn.Linear, "is not a torch.nn.Module"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_no_file_is_left(export, model, says, tmp_path):
    suffix = "onnx" if export is to_onnx else "pt2"
    (tmp_path / f"net.{suffix}").write_text("before")
    with pytest.raises(SparsityError, match=says):
        export(model, torch.rand(4, 1, 8, 8), tmp_path / f"net.{suffix}")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(f"net.{suffix}", "before")]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"example": None}, "example=NoneType is not a batch"),
        ({"path": 3}, "path=3 is not the name of a .onnx file: write 'net.onnx'"),
        ({"path": "net.pt"}, "path='net.pt' is not the name of a .onnx file"),
        ({"path": "no/such/net.onnx"}, "in a folder that does not exist: make 'no/such' first"),
        ({"int8": torch.rand(8, 3)}, r"int8 holds inputs of shape \(8, 3\), and the model takes \(n, 1, 8, 8\)"),
        ({"int8": torch.full((8, 1, 8, 8), np.nan)}, "int8 holds inputs that are not finite"),
        ({"int8": 0.5}, "int8 is a float, not images and labels"),
    ],
)
def test_odd_arguments_are_refused(arguments, says, tmp_path):
    right = {"model": small(), "example": torch.rand(4, 1, 8, 8), "path": tmp_path / "net.onnx"}
    with pytest.raises(SparsityError, match=says):
        to_onnx(**right | arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_gives_something_else_is_not_put_in_place(tmp_path, monkeypatch):
    # A runtime that computes something else, and an exporter that changes weights: no real one is at hand that does.
    module = sys.modules["lightning_sparse.export.onnx"]
    x = torch.rand(4, 1, 8, 8)
    real_run, real_write = module.run_of, module._write
    with monkeypatch.context() as patch:
        patch.setattr(module, "run_of", lambda file: lambda *given: [1.001 * y for y in real_run(file)(*given)])
        with pytest.raises(
            SparsityError, match="ONNX Runtime gives other outputs than model=Sequential on the"
        ) as error:
            to_onnx(small(), x, tmp_path / "net.onnx")

    def filled(program, file, name):
        real_write(program, file, name)
        held = onnx.load(str(file))
        for each in held.graph.initializer:
            value = onnx.numpy_helper.to_array(each)
            if value.ndim == 2:
                each.CopyFrom(onnx.numpy_helper.from_array(np.where(value == 0, np.float32(1e-9), value), each.name))
        onnx.save(held, str(file))

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write", filled)
        with pytest.raises(SparsityError, match=r"not all of the \d+ zeros of 1.weight are zero in the ONNX file"):
            to_onnx(small(), x, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []
    call = call_in(error, "to_exported_program(").replace("'net.pt2'", "path")
    names = {"to_exported_program": to_exported_program, "model": small(), "example": x, "path": tmp_path / "net.pt2"}
    assert eval(call, names).module()(x).shape == (4, 10)
