"""The command ``lightning-sparse-report``: the report of one sweep, or one that compares several."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_sparse.errors import SparsityError


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the report and print where it is, or one line of what is wrong, and exit with 2."""
    given = _parser().parse_args(arguments)
    try:
        page = _report([Path(folder) for folder in given.folders], given.output)
    except (SparsityError, OSError) as error:
        print(f"lightning-sparse-report: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"report: {page.resolve()}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lightning-sparse-report",
        description="Write the report of a sweep, at any time, also while it runs or after it was killed: report.html, "
        "which opens offline, table.csv, records.csv and figures/, in the sweep's folder. Of several sweeps: one report "
        "that compares them, and nothing is written into their folders.",
        epilog="example: lightning-sparse-report outputs/quick outputs/robustness --output comparison",
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="a sweep's folder, such as outputs/quick")
    parser.add_argument("--output", metavar="DIR", help="where a comparison goes (default: comparison)")
    return parser


def _report(folders: list[Path], output: str | None) -> Path:
    different = list({folder.resolve(): folder for folder in folders}.values())
    if len(different) == 1:
        if output is not None:
            raise SparsityError(
                f"--output={output} is for several sweeps: leave it out, and the report goes into {different[0]}"
            )
        from lightning_sparse.app.finish import rebuild

        return rebuild(different[0]).folder / "report.html"
    from lightning_sparse.report import write
    from lightning_sparse.tables.combined_sweeps import combine

    return write(combine(different, output or "comparison"))


if __name__ == "__main__":
    main()
