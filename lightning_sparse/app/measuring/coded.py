"""What a compressed network takes: the length of the string that it was decoded from, and of each part."""

from __future__ import annotations

from lightning_sparse.app.compression import is_compressed
from lightning_sparse.app.measuring.kind import Kind, Settings, at_once
from lightning_sparse.app.measuring.trained import Trained
from lightning_sparse.results.records import Measured, Record


def _measure(trained: Trained, settings: Settings) -> Measured:
    coded = trained.coded
    assert coded is not None
    of = f"share of {coded.numbers} numbers in float32"
    rows = [Record("cost_coded_bits", coded.share, 0, detail=f"{of}; {coded.says}")]
    rows += [Record(f"cost_coded_bits_{part}", share, 0, detail=of) for part, share in coded.parts.items()]
    rows.append(
        Record(
            "cost_coded_ideal", coded.ideal, 0, detail=f"{of}, of a code that knows the frequencies; 16 bits a number"
        )
    )
    return Measured(rows)


CODED = Kind("coded", settings=lambda config: {} if is_compressed(config) else None, measure=at_once(_measure))
