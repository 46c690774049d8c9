"""Several sweeps combined into one, so that one report compares them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lightning_sparse.errors import SparsityError
from lightning_sparse.results.jobs import Job
from lightning_sparse.tables.collect import Sweep, collect

SUBJECT = ["data", "model", "method"]


def combine(folders: Sequence[str | Path], output: str | Path) -> Sweep:
    """Read several sweeps as one.

    Args:
        folders: the sweeps' folders, at least two.
        output: the folder for their common report: a new one, or one that holds such a report.

    Returns:
        All jobs and records. A method, or dense, that several sweeps have for the same data set and model is named
        ``"method (sweep)"``; folders of jobs are absolute.

    Raises:
        SparsityError: if a folder does not exist or holds no job, or ``output`` holds anything but such a report.
    """
    import pandas as pd

    output = Path(output)
    _check_output(output)
    names = short_names([Path(folder).resolve() for folder in folders])
    sweeps = dict(zip(names, (collect(folder) for folder in folders), strict=True))
    counts = Counter(subject for sweep in sweeps.values() for subject in {_subject(job) for job in sweep.members})

    def renamed(sweep: str, subject: tuple[str, str, str]) -> str:
        return f"{subject[2]} ({sweep})" if counts[subject] > 1 else subject[2]

    frames, members, launches = [], [], Counter[str]()
    for name, sweep in sweeps.items():
        # Two sweeps may have runs of the same name: the sweep's name tells them apart.
        methods = [renamed(name, subject) for subject in sweep.frame[SUBJECT].itertuples(index=False, name=None)]
        frames.append(sweep.frame.assign(run=name + "/" + sweep.frame["run"], method=methods))
        for job in sweep.members:
            members.append(replace(job, run=f"{name}/{job.run}", method=renamed(name, _subject(job))))
        launches.update(sweep.launches)
    never_compared = [
        f"The jobs of {name} were never compared with each other, so that differences from dense, transfer maps and "
        f"forgotten images are missing: run lightning-sparse-report {sweep.folder} first."
        for name, sweep in sweeps.items()
        if not (sweep.folder / "records.jsonl").exists()
    ]
    superseded = tuple(f"{name}/{older}" for name, sweep in sweeps.items() for older in sweep.superseded)
    unreadable = tuple(f"{name}: {said}" for name, sweep in sweeps.items() for said in sweep.unreadable)
    frame, title = pd.concat(frames, ignore_index=True), " and ".join(names)
    return Sweep(title, output, frame, tuple(members), superseded, dict(launches), tuple(never_compared), unreadable)


def _subject(job: Job) -> tuple[str, str, str]:
    return job.data, job.model, job.method


def short_names(folders: Sequence[Path]) -> list[str]:
    """Name folders by as many of their last parts as it takes to tell them apart.

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


def _check_output(output: Path) -> None:
    # The report deletes other figures from its folder, which must not be someone's pictures.
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    of_a_sweep = any(output.glob("*/job.json"))
    if not output.is_dir() or of_a_sweep or not (output / "report.html").exists():
        holds = "is a sweep" if of_a_sweep else "holds something other than a report"
        raise SparsityError(f"output={str(output)!r} {holds}: name a new folder, such as --output comparison")
