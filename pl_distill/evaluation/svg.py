"""Plots as SVG that sits inside a page: its colours and fonts are the page's, so that light and dark both read well.

matplotlib draws with marker colours, which are then replaced by the page's CSS variables; identifiers get a prefix,
since several plots share one page.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, GRID, TEACHER, STUDENT = (f"#0101{number:02x}" for number in range(1, 6))
_VARIABLES = dict(
    zip(
        (INK, MUTED, GRID, TEACHER, STUDENT),
        ("ink", "muted", "grid", "teacher", "student"),
        strict=True,
    )
)
COLOUR_OF = {"model": TEACHER, "teacher": TEACHER, "student": STUDENT}
"""The colour of a model, the same in every plot and table."""

_DOTS_PER_INCH = 72  # one SVG unit is one CSS pixel


class Plot:
    """One figure with one pair of axes.

    Args:
        name: Unique within the page; letters, digits and hyphens.
        height: CSS pixels.
        width: CSS pixels at which letters have their size; the page scales the plot to its place.
    """

    def __init__(self, name: str, height: float, width: float) -> None:
        self.name = name
        self.svg = ""
        with matplotlib.rc_context(_STYLE):
            self.figure = Figure(
                figsize=(width / _DOTS_PER_INCH, height / _DOTS_PER_INCH), dpi=_DOTS_PER_INCH, layout="constrained"
            )
            self.axes: Axes = self.figure.add_subplot()


@contextmanager
def plot(name: str, height: float = 230, width: float = 440) -> Iterator[Plot]:
    """Give axes to draw into; afterwards `Plot.svg` holds the element."""
    drawing = Plot(name, height, width)
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        yield drawing
        buffer = io.StringIO()
        drawing.figure.savefig(buffer, format="svg", transparent=True)
    drawing.svg = embed(buffer.getvalue(), name)


def embed(document: str, name: str) -> str:
    """Turn an SVG document of matplotlib into an element of an HTML page."""
    element = document[document.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    opening, rest = element.split(">", 1)
    view_box = re.search(r'viewBox="[^"]*"', opening)
    opening = f"<svg {view_box.group() if view_box else ''}>"
    rest = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', rest)
    rest = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", rest)
    rest = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', rest)
    rest = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", rest)
    for colour, variable in _VARIABLES.items():
        rest = rest.replace(colour, f"var(--{variable})")
    return opening + rest


_STYLE: Any = {  # matplotlib types every key by name
    "svg.fonttype": "none",
    "font.size": 11,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "text.parse_math": False,  # a pair of $ in a name begins no formula
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 11,
    "lines.linewidth": 1.8,
    "path.simplify_threshold": 0.5,
}
