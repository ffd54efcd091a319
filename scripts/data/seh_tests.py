#!/usr/bin/env python3
"""Writes the molecules on which the papers on the sEH task measure correlations.

    pip install numpy
    scripts/data/seh_tests.py some_mols_U_1k.pkl.gz blocks_PDB_105.json seh_tests.csv
    gfn data import sehtests seh_tests.csv

Both files are in https://github.com/d-tiapkin/gflownet-rl (MIT), mols/data. A molecule is written as its
fragments, a dot between them and a ring closure from %10 on for each join: any reader of SMILES takes it for the
molecule. All 950 have two to eight fragments; 910 of them join each atom at most once.

The molecules may also be a JSON list of {"blocks": [3, 99], "jbonds": [[0, 1, 0, 1]]}.
"""

import collections
import json
import re
import sys

# Atoms of a SMILES: in brackets, of two letters, of one.
ATOM = re.compile(r"\[[^\]]*\]|Cl|Br|[A-Za-z]")


def molecules(path):
    """For each molecule the numbers of its blocks, and its joins: two blocks, and an atom of each."""
    if path.endswith(".json"):
        with open(path, encoding="utf-8") as file:
            return [(molecule["blocks"], molecule["jbonds"]) for molecule in json.load(file)]
    from plain_pickle import load

    known = load(path, blank=("__main__", "mol_mdp_ext", "utils", "rdkit"))
    return [(molecule.blockidxs, molecule.jbonds) for _, molecule in known]


def block_smiles(path):
    with open(path, encoding="utf-8") as file:
        table = json.load(file)
    if "blocks" in table:
        return [block["smiles"] for block in table["blocks"]]
    return [table["block_smi"][str(number)] for number in range(len(table["block_smi"]))]


def with_joins(smiles, joins):
    """A fragment with ring closures behind atoms; an atom in brackets loses a hydrogen for each."""
    numbers = collections.defaultdict(list)
    for atom, number in joins:
        numbers[atom].append(number)
    place = iter(range(len(smiles)))

    def written(match):
        atom = match.group()
        closures = numbers[next(place)]
        for _ in closures if atom.startswith("[") else ():
            atom = re.sub(r"(?<=[A-Za-z])H(\d*)", one_less, atom, count=1)
        return atom + "".join(f"%{number}" for number in closures)

    return ATOM.sub(written, smiles)


def one_less(hydrogens):
    left = int(hydrogens.group(1) or 1) - 1
    return "" if left == 0 else "H" if left == 1 else f"H{left}"


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    smiles = block_smiles(sys.argv[2])
    with open(sys.argv[3], "w", encoding="utf-8", newline="\n") as out:
        out.write("object\n")
        for blocks, joins in molecules(sys.argv[1]):
            of_block = collections.defaultdict(list)
            for number, (one, other, at_one, at_other) in enumerate(joins, start=10):
                of_block[one].append((at_one, number))
                of_block[other].append((at_other, number))
            parts = [with_joins(smiles[block], of_block[i]) for i, block in enumerate(blocks)]
            out.write(".".join(parts) + "\n")


if __name__ == "__main__":
    main()
