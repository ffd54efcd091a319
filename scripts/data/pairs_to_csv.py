#!/usr/bin/env python3
"""Converts a published table of sequences and values to the CSV that gfn reads.

    pip install numpy
    scripts/data/pairs_to_csv.py tfbind10-exact-v0-all.pkl data/tfbind10.csv --symbols ACGT
    scripts/data/pairs_to_csv.py block_18_stop6.pkl data/sehstr.csv

The pickles, which may be compressed with gzip, are named by https://github.com/niupuhua1234/GFN-PG
(its MIT licence is limited to other parts; a link to the sEH table is in its README),
https://github.com/niupuhua1234/Sub-EB (MIT) and https://github.com/maxwshen/gflownet (no licence),
whose TFBind10 is also called PHO4: a dictionary of x, whole numbers with one row per sequence, and
y, their values. The values stay as they are (those papers put 1 / (1 + exp(-3 y)) for y in
TFBind10). The CSV has the columns `object` (the numbers of the symbols with spaces between them, or
their letters where --symbols names them) and `value`. A sequence listed twice with one value is
written once; with two values it is an error.
"""

import argparse
import sys

import numpy
from plain_pickle import load

CHUNK = 100_000


def first_rows(x, y):
    """Which rows to keep; ends the program where two rows disagree."""
    base = int(x.max()) + 1
    if base ** x.shape[1] >= 2**63:
        sys.exit("the sequences are too long to be compared")
    keys = x.astype(numpy.int64) @ (base ** numpy.arange(x.shape[1], dtype=numpy.int64))
    order = numpy.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    before, again = order[:-1][same], order[1:][same]
    for i, j in zip(before, again):
        if y[i] != y[j]:
            sys.exit(f"rows {i} and {j} (from 0) are both {x[i].tolist()}, with values {y[i]} and {y[j]}")
    keep = numpy.ones(len(x), dtype=bool)
    keep[again] = False
    return keep


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pickle")
    parser.add_argument("csv")
    parser.add_argument("--symbols", default="", help="letters of the symbols in order, e.g. ACGT")
    args = parser.parse_args()
    table = load(args.pickle)
    x, y = numpy.asarray(table["x"]), numpy.asarray(table["y"])
    y = y.reshape(len(y), -1)
    kinds = x.dtype.kind in "iu" and y.dtype.kind in "fiu"
    if not kinds or x.ndim != 2 or y.shape != (len(x), 1):
        found = f"{x.dtype} {x.shape} and {y.dtype} {y.shape}"
        sys.exit(f"expected whole numbers x (M, L) and values y (M), not {found}")
    if x.min() < 0 or args.symbols and x.max() >= len(args.symbols):
        sys.exit(f"x has symbols {x.min()} to {x.max()}, but --symbols names {len(args.symbols)}")
    y = y[:, 0]
    if not numpy.isfinite(y).all():
        sys.exit(f"row {numpy.flatnonzero(~numpy.isfinite(y))[0]} (from 0) has no finite value")
    keep = first_rows(x, y)
    x, y = x[keep], y[keep]
    names = list(args.symbols) or [str(i) for i in range(x.max() + 1)]
    separator = "" if args.symbols else " "
    with open(args.csv, "w", newline="\n") as out:
        out.write("object,value\n")
        for start in range(0, len(x), CHUNK):
            rows = zip(x[start : start + CHUNK].tolist(), y[start : start + CHUNK])
            # The shortest text that reads back as the same number in the precision of the file.
            out.writelines(f"{separator.join(names[i] for i in row)},{value!s}\n" for row, value in rows)
    print(f"{len(x)} sequences, {len(keep) - len(x)} repeated rows dropped")


main()
