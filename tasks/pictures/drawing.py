"""What all pictures share: colours, and figures as files. Drawn without a display or global state."""

import io

from matplotlib import rc_context
from matplotlib.figure import Figure

BLUE, RED, GREY, GREEN = "#1f6fb4", "#c8442c", "#8a8a8a", "#2e7d32"
PANELS = 16  # variables that are drawn: more can be neither read nor drawn in a moment


def png(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=120, bbox_inches="tight")
    return sink.getvalue()


def svg(figure: Figure) -> bytes:
    """A figure as an SVG file, equal for equal figures."""
    sink = io.BytesIO()
    with rc_context({"svg.hashsalt": "surrogate"}):
        figure.savefig(sink, format="svg", bbox_inches="tight", metadata={"Date": None})
    return sink.getvalue()
