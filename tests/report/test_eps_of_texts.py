"""What eps is, at the axis and in the caption, where texts were attacked."""

from lightning_sparse.report.captions import attacks
from lightning_sparse.report.figure_contents import security_curves, x_name
from lightning_sparse.report.headline import headline
from lightning_sparse.results.records import Record
from lightning_sparse.tables.collect import collect
from lightning_sparse.tables.frames import frame_of


def test_captions_say_the_unit_of_each_norm():
    row = {"metric": "robust_accuracy", "value": 0.5, "n": 9, "attack": "pwws"}
    words, moves, pixels = (Record(**row, norm=norm, eps=0.25) for norm in ("synonyms", "embedding", "L2"))
    assert attacks(frame_of([words])) == (
        "Robust: right under every one of pwws within synonyms eps = 0.25 (share of the text's words replaced)."
    )
    assert attacks(frame_of([moves])).endswith("(share of the text's length in embedding space).")
    assert attacks(frame_of([pixels])).endswith("within L2 eps = 0.25 (pixels in [0, 1]).")


def test_the_axis_says_it_too(write_job, tmp_path):
    path = write_job(tmp_path / "runs", "dense", 0.0, 0) / "records.jsonl"
    sweep = collect(tmp_path / "runs")
    assert x_name(security_curves(sweep), sweep) == "eps: pixels in [0, 1]"
    path.write_text(path.read_text().replace("Linf", "synonyms"))
    sweep = collect(tmp_path / "runs")
    assert x_name(security_curves(sweep), sweep) == "eps: share of the text's words replaced"
    assert (
        "synonyms eps = 0.1 (the middle one of 0.05, 0.1, 0.2), share of the text's words replaced;"
        in headline(sweep)[-1]
    )
