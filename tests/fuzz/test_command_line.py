"""The command with an odd value, or a key that does not exist, in any group: refused in a line, or trained and measured."""

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf"
GROUPS = {
    "attack": "digits",
    "saliency": "default",
    "stability": "default",
    "transfer": "default",
    "cost": "default",
    "vog": "default",
    "biases": "default",
    "latency": "default",
    "layer_sensitivity": "default",
    "predictability": "default",
    "adversarial": "pgd",
    "activation": "k_winners",
    "activity": "default",
    "data": "digits",
    "trainer": "default",
    "logger": "csv",
    "sparsity": "gradual_pruning",
    "": "config",
}
# A job of a second: whatever an odd value turns on is small.
SMALL = {
    "model": "lenet_300_100",
    "trainer.max_epochs": 1,
    "attack": "none",
    "saliency": "none",
    "stability": "none",
    "cost": "none",
    "transfer": "none",
    "adversarial": "none",
    "data.batch_size": 512,
}
ON = {
    "attack": {"attack": "digits", "attack.images": 20, "attack.steps": 1, "attack.eps": "[0.1]"},
    "saliency": {"saliency": "default", "saliency.images": 20, "saliency.methods": "[gradient]"},
    "stability": {"stability": "default", "stability.images": 20, "stability.hessian_images": 20},
    "transfer": {
        "attack": "digits",
        "attack.images": 20,
        "attack.steps": 1,
        "transfer": "default",
        "transfer.images": 16,
    },
    "cost": {"cost": "default", "cost.images": 40},
    "vog": {"vog": "default", "vog.images": 20},
    "latency": {"latency": "default", "latency.batch_sizes": "[2]", "latency.seconds": 0.01, "export": "[bf16]"},
    "layer_sensitivity": {"layer_sensitivity": "default", "layer_sensitivity.images": 20},
    "predictability": {"predictability": "default", "predictability.images": 20},
    "adversarial": {"adversarial": "pgd"},
    "activation": {"activation": "k_winners"},
    "activity": {"activity": "default", "activity.images": 20},
}
ODD = [
    "null",
    "''",
    "a",
    "-1",
    "0",
    "1",
    "1.5",
    "1e400",
    "nan",
    "inf",
    "-inf",
    "true",
    "no",
    "[]",
    "[1]",
    "[-1]",
    "[a]",
    "[null]",
    "{}",
    "{a: 1}",
    "10000000",
    "'0.5'",
    "8/255",
    "../x",
    "é",
    "[0.1,x]",
]
NEW = ["foo", "imges", "steps", "_partial_"]


def keys(group):
    path = CONF / group / f"{GROUPS[group]}.yaml"
    found = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    return [key for key in found if key not in ("defaults", "hydra", "_target_", "output")]


def _run(arguments, folder):
    os.chdir(folder)
    os.setsid()
    out, err = open("out", "w", buffering=1), open("err", "w", buffering=1)  # noqa: SIM115  as long as the process
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    sys.stdout, sys.stderr = out, err  # pytest has put others there
    sys.argv = ["lightning-sparse", *arguments]
    from lightning_sparse.__main__ import main

    main()


def command(arguments, folder, seconds=60):
    """Run the command in a forked process, which has everything imported; return its exit code and what it said on stderr."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(arguments, folder))
    process.start()
    process.join(seconds)
    assert process.exitcode is not None, f"stalls: {arguments}"
    return process.exitcode, (Path(folder) / "err").read_text()


def is_clear(code, says):
    """Whether a refusal is a line of ours, or Hydra's own words before anything is run."""
    ours = code == 2 and says.strip().splitlines()[-1].startswith("lightning-sparse: ")
    hydras = code == 1 and "Traceback" not in says and "Error executing job" not in says
    return ours or hydras


def test_odd_values_on_the_command_line():
    import lightning_sparse.app.run_job  # noqa: F401  imported once, for all forks

    @given(st.data())
    def try_one(data):
        group = data.draw(st.sampled_from(sorted(GROUPS)), label="group")
        prefix = f"{group}." if group else ""
        new = data.draw(st.integers(0, 4), label="a new key at 0") == 0
        key = data.draw(st.sampled_from(NEW if new else keys(group)), label="key")
        value = data.draw(st.sampled_from(ODD), label="value")
        settings = SMALL | ON.get(group, {})
        odd = f"+{prefix}{key}={value}" if new else f"{prefix}{key}={value}"
        with tempfile.TemporaryDirectory() as folder:
            arguments = [*(f"{name}={setting}" for name, setting in settings.items() if name != f"{prefix}{key}"), odd]
            code, says = command(arguments, folder)
        assert code == 0 or is_clear(code, says), f"{odd}: exit code {code}\n{says[-3000:]}"
        assert code or not new or key in ("steps",) or group == "trainer", f"{odd} is ignored in silence"

    try_one()
