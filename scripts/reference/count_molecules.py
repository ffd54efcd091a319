"""Counts the molecules of C, N, O and F with up to N heavy atoms, by brute force with RDKit.

    pip install rdkit
    python scripts/reference/count_molecules.py 4

Every assignment of elements to atoms and of bond orders 0 to 3 to pairs is tried; what is connected
and within the valences C 4, N 3, O 2, F 1 is a neutral molecule, and different canonical SMILES are
different molecules. Nothing is shared with the program whose numbers these are compared with.
"""

import itertools
import sys

from rdkit import Chem

VALENCE = {"C": 4, "N": 3, "O": 2, "F": 1}
BONDS = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}


def connected(n, bonds):
    reached, new = {0}, {0}
    while new:
        new = {w for v in new for pair in bonds if v in pair for w in pair} - reached
        reached |= new
    return len(reached) == n


def molecules(n):
    pairs = list(itertools.combinations(range(n), 2))
    found = set()
    graphs = []
    for orders in itertools.product(range(4), repeat=len(pairs)):
        bonds = {pair: order for pair, order in zip(pairs, orders) if order}
        used = [sum(o for pair, o in bonds.items() if v in pair) for v in range(n)]
        if max(used) <= 4 and connected(n, bonds):
            graphs.append((bonds, used))
    for elements in itertools.combinations_with_replacement("CNOF", n):
        for bonds, used in graphs:
            if any(u > VALENCE[e] for u, e in zip(used, elements)):
                continue
            mol = Chem.RWMol()
            for element in elements:
                mol.AddAtom(Chem.Atom(element))
            for (v, w), order in bonds.items():
                mol.AddBond(v, w, BONDS[order])
            Chem.SanitizeMol(mol)
            found.add(Chem.MolToSmiles(mol))
    return found


total = 0
for n in range(1, int(sys.argv[1]) + 1):
    count = len(molecules(n))
    total += count
    print(f"{n} atoms: {count}, up to {n}: {total}")
