#!/usr/bin/env python3
"""Converts the public table of QM9 block strings to the CSV that gfn reads.

    pip install numpy
    scripts/qm9str_to_csv.py block_qm9str_v1_s5.pkl data/qm9str_rewards.csv

The pickle is in https://github.com/d-tiapkin/gfnx (MIT), proxy/weights/qm9_small: a dictionary
from strings of five characters 0-9a (blocks 0 to 10) to the gap in eV. A pickle can run any
code when it is loaded; this script admits nothing but numbers.
"""

import pickle
import sys

import numpy

ADMITTED = {("numpy", "dtype"), ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar")}


class Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) in ADMITTED:
            if name == "dtype":
                return numpy.dtype
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"the file wants {module}.{name}; refused")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1], "rb") as file:
        table = Unpickler(file).load()
    if len(table) != 11**5:
        sys.exit(f"expected 161051 strings, found {len(table)}")
    with open(sys.argv[2], "w", newline="\n") as out:
        out.write("b0,b1,b2,b3,b4,reward\n")
        for string in sorted(table):
            blocks = [str(int(symbol, 16)) for symbol in string]
            # The shortest text that reads back as the same single-precision number.
            out.write(",".join(blocks) + f",{numpy.float32(table[string])!s}\n")


if __name__ == "__main__":
    main()
