#!/usr/bin/env python3
"""Writes the HOMO-LUMO gaps of QM9 as a table: SMILES, heavy atoms, gap in Hartree.

    pip download --no-deps qm9pack==1.0.3
    scripts/data/qm9_gap.py qm9pack-1.0.3-py3-none-any.whl qm9_gap.csv
    gfn data import qm9_gap qm9_gap.csv

The wheel (MIT, 104 MB) is by an author of QM9 (Ramakrishnan et al. 2014, B3LYP/6-31G(2df,p)); the 3,054
molecules whose geometry did not keep its SMILES are not in it. File order is kept.
"""

import csv
import io
import sys
import zipfile


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    csv.field_size_limit(1 << 30)
    with zipfile.ZipFile(sys.argv[1]) as wheel, open(sys.argv[2], "w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["index", "smiles", "heavy_atoms", "gap_hartree"])
        for part in 1, 2, 3:
            with wheel.open(f"qm9pack/data/qm9_part{part}.csv") as file:
                for row in csv.DictReader(io.TextIOWrapper(file, newline="")):
                    heavy = row["Elements"].count("'") // 2 - row["Elements"].count("'H'")
                    writer.writerow([row["Index"], row["SMILES"], heavy, row["HOMO_LUMO_gap_au"]])


main()
