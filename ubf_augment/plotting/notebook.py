"""The figures of this package: matplotlib's, which a notebook shows with ``%matplotlib inline`` or without."""

from __future__ import annotations

from io import BytesIO

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A figure outside pyplot that a notebook shows as a picture where it is the last thing in a cell."""

    def _repr_png_(self) -> bytes:
        drawn = BytesIO()
        self.savefig(drawn, format="png")
        return drawn.getvalue()
