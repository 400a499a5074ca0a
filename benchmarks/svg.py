"""Drawings as SVG, written by hand: horizontal bars, and lines over time with a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from benchmarks.result import Plot, Point
from benchmarks.show import number

WIDTH, LABELS, MARGIN = 860, 300, 16
BAR, GAP, TITLE = 18, 8, 40
HEIGHT, AXIS = 340, 56
COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed")
OURS = "serving"
STYLE = "font-family: system-ui, sans-serif; font-size: 12px"


def draw(plot: Plot) -> str:
    """Return a plot as an SVG document."""
    height, parts = _bars(plot) if plot.bars else _lines(plot)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" style="{STYLE}">'
    paper = f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    title = _text(MARGIN, 24, f"{plot.title} ({plot.unit})", weight="bold")
    return "\n".join([head, paper, title, *parts, "</svg>", ""])


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "normal", fill: str = "#111827") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{fill}"'
    return f"<text {place}>{escape(text)}</text>"


def _bars(plot: Plot) -> tuple[int, list[str]]:
    longest = max(value for _, value in plot.bars) or 1.0
    room = WIDTH - LABELS - MARGIN - 70
    parts = []
    for place, (name, value) in enumerate(plot.bars):
        y = TITLE + place * (BAR + GAP)
        colour = COLOURS[0] if OURS in name else "#9ca3af"
        width = room * value / longest
        parts.append(_text(LABELS - 8, y + 13, name, "end"))
        parts.append(f'<rect x="{LABELS}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>')
        parts.append(_text(LABELS + width + 6, y + 13, number(value)))
    return TITLE + len(plot.bars) * (BAR + GAP) + MARGIN, parts


class _Scales:
    """Where seconds and values lie on the paper; values on a logarithmic scale of whole decades."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.first, self.last = min(at for at, _ in points), max(at for at, _ in points)
        self.low = math.floor(math.log10(max(min(value for _, value in points), 1e-3)))
        self.high = max(self.low + 1, math.ceil(math.log10(max(value for _, value in points))))

    def x(self, at: float) -> float:
        return AXIS + (at - self.first) / ((self.last - self.first) or 1.0) * (WIDTH - AXIS - MARGIN)

    def y(self, value: float) -> float:
        share = (math.log10(max(value, 10.0**self.low)) - self.low) / (self.high - self.low)
        return HEIGHT - AXIS - share * (HEIGHT - AXIS - TITLE - 20)


def _lines(plot: Plot) -> tuple[int, list[str]]:
    scales = _Scales([point for _, points in plot.lines for point in points])
    parts = list(_grid(scales))
    for place, (name, points) in enumerate(plot.lines):
        colour = COLOURS[place % len(COLOURS)]
        path = " ".join(f"{scales.x(at):.1f},{scales.y(value):.1f}" for at, value in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(_text(AXIS + place * 200, HEIGHT - 8, f"— {name}", fill=colour, weight="bold"))
    return HEIGHT, parts


def _grid(scales: _Scales) -> Iterator[str]:
    for decade in range(scales.low, scales.high + 1):
        y = scales.y(10.0**decade)
        yield f'<line x1="{AXIS}" x2="{WIDTH - MARGIN}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e7eb"/>'
        yield _text(AXIS - 6, y + 4, f"{10.0**decade:g}", "end")
    step = max(1, round((scales.last - scales.first) / 10))
    for second in range(math.ceil(scales.first / step) * step, math.floor(scales.last) + 1, step):
        yield _text(scales.x(second), HEIGHT - AXIS + 18, f"{second} s", "middle")
    yield f'<line x1="{scales.x(0):.1f}" x2="{scales.x(0):.1f}" y1="{TITLE}" y2="{HEIGHT - AXIS}" stroke="#9ca3af"/>'
