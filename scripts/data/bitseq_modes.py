#!/usr/bin/env python3
"""Writes the modes and the test set of the published experiments on bit sequences (n = 120).

    pip install numpy
    scripts/data/bitseq_modes.py 0 data/bitseq_modes_seed0.txt data/bitseq_test_seed0.txt

Nothing is downloaded: https://github.com/d-tiapkin/gflownet-rl (MIT, bitseq/run.py) draws them with
NumPy's old generator, with seed 0; the experiments of arXiv:2410.15474 use seed 42. A mode is 15
blocks, each one of five; there are 60. The test set has 120 strings per mode: itself, and one with
c of its bits flipped for c = 1 to 119. One string per line.
"""

import sys

import numpy

BLOCKS = ["00000000", "11111111", "11110000", "00001111", "00111100"]


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    seed = int(sys.argv[1])
    generator = numpy.random.RandomState(seed)
    modes = ["".join(BLOCKS[generator.choice(5)] for _ in range(15)) for _ in range(60)]
    generator = numpy.random.RandomState(seed)
    tests = []
    for mode in modes:
        tests.append(mode)
        for c in range(1, len(mode)):
            flipped = set(generator.choice(len(mode), c, replace=False))
            tests.append("".join("10"[int(bit)] if i in flipped else bit for i, bit in enumerate(mode)))
    for path, strings in zip(sys.argv[2:], [modes, tests]):
        with open(path, "w", newline="\n") as out:
            out.writelines(f"{string}\n" for string in strings)


main()
