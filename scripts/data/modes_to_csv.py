#!/usr/bin/env python3
"""Converts a published list of modes of a sequence task to the CSV that gfn reads.

    pip install numpy
    scripts/data/modes_to_csv.py modes_tfbind8.pkl data/tfbind8_modes.csv --symbols ACGT
    scripts/data/modes_to_csv.py modes_sehstr.pkl data/sehstr_modes.csv

The pickles are in https://github.com/niupuhua1234/Sub-EB (MIT), gfn-subeb/data_bio; in
https://github.com/niupuhua1234/GFN-PG (its MIT licence is limited to other parts), data_bio; and in
https://github.com/maxwshen/gflownet (no licence), datasets: a list of strings with one character
0-9a-z per symbol, or an array with one row per mode. The CSV has one column `sequence`: the numbers
of the symbols with spaces between them, or their letters where --symbols names them.
"""

import argparse
import string
import sys

from plain_pickle import load

CHARACTERS = string.digits + string.ascii_lowercase


def numbers_of(mode, symbols):
    """A mode as numbers; strings may also be spelt in `symbols`."""
    if not isinstance(mode, str):
        return [int(symbol) for symbol in mode]
    alphabet = symbols if symbols and set(mode) <= set(symbols) else CHARACTERS
    if not set(mode) <= set(alphabet):
        sys.exit(f"the mode `{mode}` is not written in the symbols {alphabet}")
    return [alphabet.index(character) for character in mode]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pickle")
    parser.add_argument("csv")
    parser.add_argument("--symbols", default="", help="letters of the symbols in order, e.g. ACGT")
    args = parser.parse_args()
    modes = [numbers_of(mode, args.symbols) for mode in load(args.pickle)]
    smallest, largest = min(map(min, modes)), max(map(max, modes))
    if smallest < 0 or args.symbols and largest >= len(args.symbols):
        sys.exit(f"the modes have symbols {smallest} to {largest}, but --symbols names {len(args.symbols)}")
    with open(args.csv, "w", newline="\n") as out:
        out.write("sequence\n")
        for mode in modes:
            text = "".join(args.symbols[i] for i in mode) if args.symbols else " ".join(map(str, mode))
            out.write(text + "\n")
    print(f"{len(modes)} modes")


main()
