"""A launch that asks for other eps of a trained model measures these and nothing else."""

from dataclasses import replace

import pytest
import torch

from lightning_sparse.app.measuring.measure_job import measure_job
from lightning_sparse.app.measuring.measurements import check_measurements, measurements_of
from lightning_sparse.app.measuring.trained import Trained
from lightning_sparse.data.images import ImageData
from lightning_sparse.results import records
from lightning_sparse.results.jobs import Job

LOW, MIDDLE, HIGH = 0.05, 0.1, 0.2
NOTHING = {
    "saliency": {"methods": []},
    "stability": {"images": 0},
    "transfer": {"images": 0},
    "cost": {"images": 0},
    "vog": {"images": 0},
}
# One step from the image itself: the only attack whose result does not depend on what else is attacked.
ATTACK = {"norm": "Linf", "tier": "sweep", "attacks": ["fgsm"], "steps": 3, "restarts": 1}
ATTACK |= {"batch_size": 256, "first": False, "images": 90, "seed": 0}


@pytest.fixture(scope="module")
def trained():
    data = ImageData("digits", shape=(1, 8, 8), classes=10, mean=[0.3], std=[0.4])
    images, labels = data.split("train")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(60):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return Trained(model, None, data, torch.device("cpu"))


@pytest.fixture
def measure(trained, tmp_path):
    """Launch with some eps: the job, and how many images went through the model."""
    seen = []

    def launch(*eps, **changes):
        config = {"data": {"name": "digits"}, "attack": ATTACK | changes | {"eps": list(eps)}, **NOTHING}
        measurements = measurements_of(config)
        check_measurements(measurements, trained.data)
        job = Job("run", "dense", "digits", "cnn", 0, 0.0, folder=tmp_path / "run")
        job = replace(job, keys=tuple(measurement.key for measurement in measurements))
        job.folder.mkdir(exist_ok=True)
        seen.clear()
        hook = trained.model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
        try:
            measure_job(job, trained, 0.0, measurements)
        finally:
            hook.remove()
        return job, sum(seen)

    return launch


def values(job):
    """The numbers that a report shows; if a row was written twice, the later one."""
    return {(row.metric, row.attack, row.eps): (repr(row.value), row.trust) for row in job.current_rows()}


def added(job, before):
    whole = job.rows.read_bytes()
    assert whole.startswith(before)
    path = job.folder / "added.jsonl"
    path.write_bytes(whole[len(before) :])
    return records.read(path), records.closed(path)


def test_one_more_eps_measures_that_eps_and_leaves_the_rest_as_it_is(measure):
    job, first = measure(LOW, HIGH)
    measure(LOW, MIDDLE, HIGH, norm="L2")  # of which nothing says anything about the others
    old, arrays = job.rows.read_bytes(), {path: path.read_bytes() for path in job.folder.glob("*.npz")}
    assert len(arrays) == 1 + 2 + 3  # clean, and each eps
    job, spent = measure(LOW, MIDDLE, HIGH)
    rows, closed = added(job, old)
    assert {row.eps for row in rows} == {MIDDLE, None}
    assert {row.metric for row in rows if row.eps is None} == {"robust_curve_area", "robust_eps_half"}
    assert sum(row.samples for row in rows) == spent < first  # nothing went through the model for an old eps
    assert {key.split("-")[2] for key in closed} - {"model"} == {"0.1", "curve"}
    assert all(path.read_bytes() == content for path, content in arrays.items())
    found, old = values(job), job.rows.read_bytes()
    measure(LOW, HIGH)
    assert job.rows.read_bytes() == old  # both lists were asked for before
    (job.folder / "records.jsonl").unlink()
    whole, _ = measure(LOW, MIDDLE, HIGH)
    assert {name for name in found if name[0] != "trust_black_box"} == {
        name for name in values(whole) if name[0] != "trust_black_box"
    }
    curve = ("robust_curve_area", "worst", None)
    assert found[curve] == values(whole)[curve]
    assert found["robust_accuracy", "worst", MIDDLE] == values(whole)["robust_accuracy", "worst", MIDDLE]


def test_fewer_eps_attack_nothing_and_only_those_are_current(measure):
    measure(LOW, MIDDLE, HIGH)
    job, spent = measure(LOW)
    assert spent <= 90 + 1
    assert {row.eps for row in job.current_rows() if row.metric == "robust_accuracy"} == {LOW}
    assert sum(row.metric == "robust_curve_area" for row in job.current_rows()) == 1
    assert sum(row.metric == "trust_deterministic" for row in job.current_rows()) == 1


def test_a_kill_anywhere_measures_again_what_lacks_its_closing_line(measure):
    job, _ = measure(LOW, HIGH)
    whole, expected = job.rows.read_bytes(), values(job)
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    for end in ends[:-1]:
        for cut in (end, end + 40):
            job.rows.write_bytes(whole[:cut])
            left = job.measured()
            job, _ = measure(LOW, HIGH)
            _, closed = added(job, whole[:cut])
            assert not closed & left - {key for key in left if key.endswith("model")}
            assert left | closed == set(job.keys)
            assert values(job) == expected
