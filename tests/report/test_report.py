"""The report as a reader sees it: one page that opens offline, and the files beside it."""

import json
import subprocess
import sys
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from lightning_sparse.report import write
from lightning_sparse.report.embedded import plotly_js
from lightning_sparse.report.headline import headline
from lightning_sparse.results.launches import Asked
from lightning_sparse.tables.collect import collect

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Collects text, the addresses of resources, and tags that were not closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        whole = path.read_text()
        assert len(whole.encode()) < 10_000_000
        assert whole.count(plotly_js()) <= 1
        self.source = whole.replace(plotly_js(), "")  # what is ours
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "data", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words = " ".join([self.words, *data.split()])


def check(path: Path) -> Page:
    page = Page(path)
    assert page.open == []
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert "@import" not in page.source
    assert "url(" not in page.source
    assert len(page.source) < 4_000_000
    return page


def write_launch(folder: Path, *jobs: tuple[str, float, int], came: int = 0) -> None:
    """Log a launch that was asked for these jobs (method, sparsity, seed) and came to the first of them."""
    asked = [
        asdict(Asked(f"{method}-{level:g}-s{seed}", method, "digits", "cnn", seed, level, False, (f"seed={seed}",)))
        for method, level, seed in jobs
    ]
    events: list[dict[str, object]] = [{"event": "launched", "jobs": len(asked), "asked": asked}]
    for i in range(came):
        events += [{"event": event, "number": i, "run": "", "how": "trained"} for event in ("started", "done")]
    (folder / "launches.jsonl").write_text(
        "".join(json.dumps({"launch": "a", "how": ""} | event) + "\n" for event in events)
    )


def test_a_whole_sweep(make_sweep, write_job):
    folder = make_sweep()
    write_job(folder, "gradual", 0.8, 0, status="failed", error="OutOfMemoryError: tried to allocate 2 GiB")
    write_launch(
        folder,
        ("dense", 0.0, 0),
        ("brain", 0.9, 1),  # which an earlier launch has done
        ("brain", 0.8, 0),
        came=1,
    )
    path = write(collect(folder))
    assert path == folder / "report.html"
    page = check(path)
    assert "OutOfMemoryError: tried to allocate 2 GiB" in page.words
    assert "2 holes in this sweep" in page.words
    assert "brain, sparsity 0.8, seed 0 : not started" in page.words
    assert "1 launch: 1 job trained." in page.words
    assert "86.0 ± 2.5" in page.words  # gradual at 0.9: 0.95 - 0.1 * 0.9
    assert page.tags.count("img") == 3 + 4
    for name in ["robustness", "security_curves", "saliency", "maps_brain_gradient", "maps_gradual_gradient"]:
        with Image.open(folder / "figures" / f"{name}.png") as picture:
            assert picture.width >= 500
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 20
        svg = ElementTree.parse(folder / "figures" / f"{name}.svg").getroot()
        assert sum(1 for node in svg.iter() if node.tag.endswith(("path", "image"))) > 30
    assert not list(folder.rglob("*.part"))


def test_the_headline_says_what_the_numbers_say(make_sweep):
    said = headline(collect(make_sweep()))
    assert said[0] == "Dense: 95.0 ± 2.5 % clean, 75.0 ± 2.5 % robust."
    # Seeds share their jitter, so that the difference seed by seed has no spread: paired, and not of the means.
    assert said[2].startswith("gradual at sparsity 0.98: 85.2 ± 2.5 % clean, 45.6 ± 2.5 % robust.")
    assert said[2].endswith(
        "clean \N{MINUS SIGN}9.8 [\N{MINUS SIGN}9.8, \N{MINUS SIGN}9.8], "
        "robust \N{MINUS SIGN}29.4 [\N{MINUS SIGN}29.4, \N{MINUS SIGN}29.4]."
    )
    assert "eps = 0.1 (the middle one of 0.05, 0.1, 0.2)" in said[-1]
    assert "100 test images still correct under every one of apgd-dlr, fgsm, pgd" in said[-1]
    assert "over 3 seeds" in said[-1]


def test_one_seed_claims_nothing(make_sweep):
    folder = make_sweep(methods=("brain",), levels=(0.9,), seeds=(0,))
    page = check(write(collect(folder)))
    assert "One seed: no claim" in page.words
    assert "±" not in page.words.split("How to read")[0].replace("has no ±", "").replace("seeds ± half", "")


def test_a_sweep_of_failures_shows_its_holes(make_sweep, write_job, tmp_path):
    folder = tmp_path / "lost"
    write_job(folder, "dense", 0.0, 0, status="failed", error="no such file: digits")
    write_job(folder, "gradual", 0.9, 0, status="failed", error="no such file: digits")
    page = check(write(collect(folder)))
    assert "2 holes" in page.words
    assert page.words.count("no such file: digits") == 8  # box, table, opened line of it, list of jobs
    assert "img" not in page.tags
    assert "No accuracy was measured" in page.words


def test_without_saliency_the_rest_is_there(tmp_path, write_job):
    folder = tmp_path / "plain"
    for method, sparsity in (("dense", 0.0), ("gradual", 0.9)):
        write_job(folder, method, sparsity, 0, saliency=False)
    page = check(write(collect(folder)))
    assert sorted(file.name for file in (folder / "figures").glob("*.png")) == ["robustness.png", "security_curves.png"]
    assert "Gini" not in page.words


def test_without_dense_and_with_one_level(tmp_path, write_job):
    folder = tmp_path / "alone"
    write_job(folder, "brain", 0.9, 0)
    page = check(write(collect(folder)))
    assert "brain at sparsity 0.9" in page.words
    assert (folder / "figures" / "maps_brain_gradient.png").exists()


def test_torn_maps_cost_one_cell(make_sweep):
    folder = make_sweep(methods=("brain",), levels=(0.5, 0.9), seeds=(0,))
    file = folder / "brain-0.5-s0" / "saliency-0.npz"
    file.write_bytes(file.read_bytes()[:300])
    write(collect(folder))
    assert (folder / "figures" / "maps_brain_gradient.png").exists()


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "$x^$ & \"quotes'", "../../up"])
def test_a_hostile_method_name_is_only_a_name(tmp_path, write_job, name):
    folder = tmp_path / "sub" / "hostile"
    write_job(folder, "dense", 0.0, 0)
    write_job(folder, name, 0.9, 0, run="hostile")
    page = check(write(collect(folder)))
    assert name in page.words
    assert page.tags.count("script") == 3  # plotly, what it draws, and what makes the page answer
    assert "<script>alert" not in page.source
    described = json.loads(page.source.split('id="plots">')[1].split("</script>")[0])
    legend = [entry["name"] for plot in described for entry in plot["legend"]]
    assert name in legend
    # Nothing is written outside the sweep's folder.
    assert [file.name for file in (tmp_path / "sub").iterdir()] == ["hostile"]
    assert [file.name for file in tmp_path.iterdir()] == ["sub"]


def test_two_data_sets_are_two_parts_of_one_page(make_sweep, write_job):
    folder = make_sweep(methods=("gradual",), levels=(0.5,), seeds=(0,))
    for method, sparsity in (("dense", 0.0), ("gradual", 0.5)):
        write_job(folder, method, sparsity, 0, run=f"mnist-{method}", data="mnist")
    page = check(write(collect(folder)))
    assert "Accuracy and robustness, mnist, cnn" in page.words
    assert (folder / "figures" / "mnist-cnn" / "robustness.png").exists()


def test_an_achieved_sparsity_is_read_without_the_rounding_to_whole_connections(make_sweep):
    folder = make_sweep(methods=("gradual",), levels=(0.8, 0.98), seeds=(0, 1))
    for seed, achieved in ((0, "0.7999924530"), (1, "0.7999924531")):
        for rows in (folder / f"gradual-0.8-s{seed}" / "records.jsonl", folder / "records.jsonl"):
            rows.write_text(rows.read_text().replace('"sparsity": 0.8', f'"sparsity": {achieved}'))
    source = write(collect(folder)).read_text()
    assert 'title="0.799992453">0.8</td>' in source
    assert "0.799992453" in (folder / "table.csv").read_text()
    sweep = collect(folder)
    assert not any("0.79999" in line for line in headline(sweep))


def test_the_same_records_give_the_same_files(make_sweep):
    folder = make_sweep(methods=("gradual",), levels=(0.5,), seeds=(0, 1))
    first = write(collect(folder)).read_bytes()
    assert write(collect(folder)).read_bytes() == first


def test_importing_the_report_is_cheap():
    slow = "{'pandas', 'matplotlib', 'jinja2', 'plotly', 'torch', 'wandb', 'scipy'}"
    code = f"import sys, lightning_sparse.report; print(sorted({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
