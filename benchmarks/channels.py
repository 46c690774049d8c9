"""A ResNet-20 without half, three quarters and nine tenths of its channels, beside the dense one in other forms."""

from __future__ import annotations

import copy
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from harness import milliseconds, race, ratio
from shrink import SHAPE, dead

from export import capabilities
from lightning_sparse.export import shrink, to_onnx
from lightning_sparse.export.onnx import run_of
from lightning_sparse.models import resnet20

SHARES = (0.5, 0.75, 0.9)
FORMS = ("shrunk", "torch bf16", "ORT", "ORT int8", "ORT, shrunk", "ORT int8, shrunk", "OpenVINO int8")


def openvino(path: Path) -> Callable[[torch.Tensor], object]:
    """An ONNX file in OpenVINO, on one thread."""
    from openvino import Core

    compiled = Core().compile_model(str(path), "CPU", {"INFERENCE_NUM_THREADS": 1})
    return lambda x: compiled(x.numpy())


def main() -> None:
    torch.manual_seed(0)
    dense, calibration = resnet20(SHAPE, 10).eval(), torch.randn(64, *SHAPE)
    half = copy.deepcopy(dense).bfloat16()
    print(
        "### ResNet-20 without channels: times as fast as dense torch in float32, one thread\n\n"
        f"{capabilities()}. Weights are random, which changes no time.\n\n"
        f"| {' | '.join(('channels removed', 'weights left', 'batch', 'dense ms', 'again', *FORMS))} |"
    )
    print("|---" * (5 + len(FORMS)) + "|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = to_onnx(dense, calibration, folder / "whole.onnx", int8=calibration).path
        to_onnx(dense, calibration, folder / "plain.onnx")
        for share in SHARES:
            small = shrink(dead(dense, calibration, share), calibration).model
            small_int8 = to_onnx(small, calibration, folder / "small_int8.onnx", int8=calibration).path
            to_onnx(small, calibration, folder / "small.onnx")
            forms: dict[str, Callable[[torch.Tensor], object]] = {
                "dense": dense,
                "again": copy.deepcopy(dense),
                "shrunk": small,
                "torch bf16": lambda x: half(x.bfloat16()).float(),
                "ORT": run_of(folder / "plain.onnx"),
                "ORT int8": run_of(whole),
                "ORT, shrunk": run_of(folder / "small.onnx"),
                "ORT int8, shrunk": run_of(small_int8),
            }
            if importlib.util.find_spec("openvino"):
                forms["OpenVINO int8"] = openvino(whole)
            left = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in dense.parameters())
            for batch in (1, 16):
                x = calibration[:batch]
                with torch.inference_mode():
                    work = {form: lambda run=run, x=x: lambda: run(x) for form, run in forms.items()}
                    times = race(work, 31, 6 if batch == 1 else 1)
                fast = {form: 1 / ratio(times, form, "dense") for form in times}
                cells = [f"{share:.0%}", f"{left:.3f}", str(batch), f"{milliseconds(times, 'dense'):.2f}"]
                cells += [f"{fast[form]:.2f}" if form in fast else "-" for form in ("again", *FORMS)]
                print(f"| {' | '.join(cells)} |", flush=True)
    print("\nORT is ONNX Runtime. OpenVINO is measured where it is installed.\n")


if __name__ == "__main__":
    main()
