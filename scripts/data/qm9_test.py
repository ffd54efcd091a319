#!/usr/bin/env python3
"""Writes molecules of QM9 to measure correlations on, chosen as by the code of arXiv:2410.15474.

    scripts/data/qm9_test.py qm9_gap.csv qm9_test.csv
    gfn train configs/qm9_subtb_tlm.toml -s eval.test_set=qm9_test.csv

In file order, the first 201 (or fewer) of each number of heavy atoms from 3 to 8: 770 of them. The
default world has no charges: molecules with charges are passed over, and those after them come up
(--charged keeps them, for env.actions = "charges"). Drawings that differ in their stereochemistry alone are
one molecule to the default world: the first is kept.
"""

import collections
import csv
import re
import sys


def main():
    charged = "--charged" in sys.argv
    args = [arg for arg in sys.argv[1:] if arg != "--charged"]
    if len(args) != 2:
        sys.exit(__doc__)
    counts, seen = collections.Counter(), set()
    with open(args[0]) as file, open(args[1], "w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["smiles", "gap_hartree"])
        for row in csv.DictReader(file):
            n, smiles = int(row["heavy_atoms"]), row["smiles"]
            flat = re.sub(r"\[C@+H?\]", "C", re.sub(r"[/\\]", "", smiles))
            if not 3 <= n <= 8 or counts[n] >= 201 or flat in seen:
                continue
            if not charged and re.search(r"[+-]", smiles):
                continue
            seen.add(flat)
            counts[n] += 1
            writer.writerow([flat if "@" in smiles else smiles, row["gap_hartree"]])
    print(sum(counts.values()), "molecules:", dict(sorted(counts.items())), file=sys.stderr)


main()
