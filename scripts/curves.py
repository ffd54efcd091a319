#!/usr/bin/env python3
"""Draws columns of metrics.csv files as an SVG, one panel per column.

    scripts/curves.py OUT.svg COLUMN[,COLUMN...] FILE.csv [FILE.csv ...]

x is the number of trajectories; y is logarithmic where all values are positive and span a decade.
Needs nothing but Python.
"""

import csv
import math
import pathlib
import sys

WIDTH, HEIGHT, LEFT, BOTTOM, GAP = 340, 240, 52, 40, 30
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]


def read(path, column):
    with open(path) as file:
        rows = [(row["trajectories"], row[column]) for row in csv.DictReader(file)]
    return [(float(x), float(y)) for x, y in rows if y]


def ticks(low, high, log):
    if log:
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        values = [d * 10.0**e for e in exponents for d in (1, 2, 5)]
    else:
        step = 10 ** math.floor(math.log10((high - low) or 1))
        step *= 1 if (high - low) / step > 3 else 0.5
        values = [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return [value for value in values if low * 0.999 <= value <= high * 1.001]


def panel(left, column, curves):
    points = [point for _, curve in curves for point in curve]
    x_max = max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    log = low > 0 and high / low > 10
    scale = math.log10 if log else lambda value: value
    span = (scale(high) - scale(low)) or 1
    place_x = lambda x: left + LEFT + (WIDTH - LEFT) * x / x_max
    place_y = lambda y: GAP + (HEIGHT - BOTTOM - GAP) * (1 - (scale(y) - scale(low)) / span)
    yield f'<text x="{left + LEFT}" y="18" font-weight="bold">{column}</text>'
    for tick in ticks(low, high, log):
        y = place_y(tick)
        yield f'<path d="M{left + LEFT} {y:.1f}H{left + WIDTH}" stroke="#ddd"/>'
        yield f'<text x="{left + LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
    for tick in ticks(0, x_max, False)[1:]:
        label = f"{tick / 1000:g}k" if tick >= 1000 else f"{tick:g}"
        y = HEIGHT - BOTTOM + 16
        yield f'<text x="{place_x(tick):.1f}" y="{y}" text-anchor="middle">{label}</text>'
    for (name, curve), colour in zip(curves, COLOURS):
        path = "L".join(f"{place_x(x):.1f} {place_y(y):.1f}" for x, y in curve)
        yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    out, columns, files = sys.argv[1], sys.argv[2].split(","), sys.argv[3:]
    width = len(columns) * (WIDTH + GAP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT + 20 * len(files)}" '
        f'width="{width}" font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for i, column in enumerate(columns):
        curves = [(pathlib.Path(file).stem, read(file, column)) for file in files]
        lines += panel(i * (WIDTH + GAP), column, curves)
    lines.append(f'<text x="{width / 2}" y="{HEIGHT - 6}" text-anchor="middle">trajectories</text>')
    for i, (file, colour) in enumerate(zip(files, COLOURS)):
        y = HEIGHT + 10 + 18 * i
        lines.append(f'<path d="M{LEFT} {y}h24" stroke="{colour}" stroke-width="2"/>')
        lines.append(f'<text x="{LEFT + 32}" y="{y + 4}">{pathlib.Path(file).stem}</text>')
    pathlib.Path(out).write_text("\n".join(lines + ["</svg>", ""]))


main()
