"""What the page has inside it: pictures, descriptions of figures for plotly, and plotly itself."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_sparse.report.all_figures import Picture

SVG_AT_MOST = 1.5  # times the bytes of the PNG: pictures of many small squares are smaller as PNG
# With plotly (4.8 million characters) and the tables the page stays below 10 MB, small enough for mail.
PICTURES_AT_MOST = 3_500_000


class Embedded:
    """The figures of a page in ``folder``, as far as there is room; of the others it has only the file's name."""

    def __init__(self, folder: Path) -> None:
        self.plots: list[dict[str, Any]] = []
        self._folder = folder
        self._room = PICTURES_AT_MOST

    def figure(self, picture: Picture) -> dict[str, Any]:
        """What the template needs of a figure; its description for plotly joins ``plots``."""
        self.plots += [picture.plot] if picture.plot else []
        return {
            "name": picture.stem.name,
            "file": picture.stem.relative_to(self._folder).as_posix(),
            "wide": not picture.stem.name.startswith(("transfer_", "maps_")),
            "says": picture.says,
            "notes": picture.notes,
            "problem": picture.problem,
            "plot": len(self.plots) - 1 if picture.plot else None,
            "legend": picture.plot["legend"] if picture.plot else [],
            "rows": picture.plot["rows"] if picture.plot else [],
            "sheet": picture.sheet,
            "source": "" if picture.problem or picture.sheet else self._source(picture.stem),
        }

    def _source(self, stem: Path) -> str:
        picture, kind, pixels = Path(f"{stem}.svg"), "svg+xml", Path(f"{stem}.png")
        if picture.stat().st_size > SVG_AT_MOST * pixels.stat().st_size:
            picture, kind = pixels, "png"
        source = f"data:image/{kind};base64,{b64encode(picture.read_bytes()).decode()}"
        if len(source) > self._room:
            return ""
        self._room -= len(source)
        return source


def plotly_js() -> str:
    """The source of plotly.js, safe between script tags."""
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    return str(get_plotlyjs()).replace("</script", "<\\/script")
