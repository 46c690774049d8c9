"""Several sweeps as one: the same report, with each sweep's name behind the methods that more than one of them has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_sparse.errors import SparsityError
from lightning_sparse.tables.collect import Sweep, collect

if TYPE_CHECKING:
    import pandas as pd

SUBJECT = ["data", "model", "method"]


def together(folders: Sequence[str | Path], output: str | Path) -> Sweep:
    """Read several sweeps as one.

    Args:
        folders: the sweeps' folders, at least two.
        output: where the report of them all is to go: a new folder, or one that holds such a report.

    Returns:
        All jobs and records. A method that several sweeps have for the same data set and model is named
        ``"method (sweep)"``, dense too; folders of jobs are absolute.

    Raises:
        SparsityError: if a folder does not exist or holds no job, or ``output`` holds something else than such a report.
    """
    import pandas as pd

    output = Path(output)
    _check_output(output)
    names = short_names([Path(folder).resolve() for folder in folders])
    sweeps = [_signed(collect(folder), name) for folder, name in zip(folders, names, strict=True)]
    jobs = pd.concat([sweep.jobs.assign(sweep=sweep.name) for sweep in sweeps], ignore_index=True)
    frame = pd.concat([sweep.frame.assign(sweep=sweep.name) for sweep in sweeps], ignore_index=True)
    counts = jobs.groupby(SUBJECT)["sweep"].nunique()
    shared = set(counts[counts > 1].index)
    launches: Counter[str] = Counter()
    for sweep in sweeps:
        launches.update(sweep.launches)
    return Sweep(
        " and ".join(names),
        output,
        _named(frame, shared),
        _named(jobs, shared),
        tuple(older for sweep in sweeps for older in sweep.superseded),
        dict(launches),
    )


def short_names(folders: Sequence[Path]) -> list[str]:
    """Name folders by their last parts, as many as tell them apart.

    Example:
        >>> short_names([Path("/a/quick"), Path("/a/long")]), short_names([Path("/a/quick"), Path("/b/quick")])
        (['quick', 'long'], ['a/quick', 'b/quick'])
    """
    most = max(len(folder.parts) for folder in folders)
    for parts in range(1, most + 1):
        names = ["/".join(folder.parts[-parts:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return names


def _signed(sweep: Sweep, name: str) -> Sweep:
    """Let runs of the same name, trained alike for two sweeps, be told apart."""
    frame = sweep.frame.assign(run=name + "/" + sweep.frame["run"])
    started = sweep.jobs["folder"] != ""
    absolute = str(sweep.folder.resolve()) + "/" + sweep.jobs["folder"]
    jobs = sweep.jobs.assign(run=name + "/" + sweep.jobs["run"], folder=absolute.where(started, ""))
    return replace(sweep, name=name, frame=frame, jobs=jobs, superseded=tuple(f"{name}/{f}" for f in sweep.superseded))


def _named(lines: pd.DataFrame, shared: set[tuple[str, str, str]]) -> pd.DataFrame:
    subjects = lines[[*SUBJECT, "sweep"]].itertuples(index=False, name=None)
    methods = [f"{method} ({sweep})" if (*of, method) in shared else method for *of, method, sweep in subjects]
    return lines.assign(method=methods).drop(columns="sweep")


def _check_output(output: Path) -> None:
    # Figures that are not of this report are removed from its folder, which must not be someone's pictures.
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    of_a_sweep = any(output.glob("*/job.json"))
    if not output.is_dir() or of_a_sweep or not (output / "report.html").exists():
        holds = "is a sweep" if of_a_sweep else "holds something else than a report"
        raise SparsityError(f"output={str(output)!r} {holds}: name a new folder, such as --output comparison")
