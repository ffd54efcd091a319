#!/usr/bin/env python3
"""Fits the parameters of crates/gfn-envs/src/chemistry/huckel.rs to the HOMO-LUMO gaps of QM9.

    pip install numpy rdkit
    python3 scripts/reference/fit_huckel.py data/qm9_smiles_gap.csv

The model is written here a second time, in the words of that file; energies of pi orbitals and their
couplings are Van-Catledge's (J. Org. Chem. 45, 4801, 1980) and stay. The rest is moved, one number
at a time, to raise the Pearson and the Spearman correlation on 1,500 molecules; 1,500 others are
kept for the test. Some minutes.
"""

import csv
import random
import sys

import numpy as np
from rdkit import Chem

# Energies by element and number of pi electrons, couplings by pair.
H = {"C1": 0.0, "N1": 0.51, "N2": 1.37, "O1": 0.97, "O2": 2.09, "F2": 2.71, "C2": 0.2}
K = {
    "C1C1": 1.0, "C1N1": 1.02, "C1N2": 0.89, "C1O1": 1.06, "C1O2": 0.66, "C1F2": 0.52,
    "N1N1": 1.09, "N1N2": 0.99, "N2N2": 0.98, "N1O1": 1.14, "N2O1": 0.80, "N1O2": 1.13,
    "N2O2": 0.89, "O1O1": 1.26, "O1O2": 1.02, "O2O2": 0.95, "F2N1": 0.65, "F2N2": 0.52,
    "F2O1": 0.77, "F2O2": 0.92,
}  # fmt: skip
START = {
    "plus": 1.89, "minus": -2.15, "double": 0.96, "single": -0.51,
    "n_N": 1.0, "n_O": 0.59, "n_sp3": 2.0, "n_sp": 3.0,
    "s": 1.88, "s_N": 1.96, "s_O": 0.29, "s_F": 1.0, "s_ring3": -0.82, "s_sp3": 1.53, "s_H": -0.45,
    "u": -1.67, "u_F": 0.12, "u_ring3": -0.10, "u_H": -0.12,
    "ss": 0.60, "uu": 0.16, "ps": 0.77, "pu": 0.74, "ns": 0.30, "nu": 0.42,
    "own_ns": 0.34, "own_nu": 0.42,
}  # fmt: skip
NAMES = list(START)


def terms(smiles):
    """Entries (i, j, parameter or number, factor) of the matrix, and the number of electrons."""
    mol = Chem.MolFromSmiles(smiles)
    aromatic = [bond.GetIsAromatic() for bond in mol.GetBonds()]
    Chem.Kekulize(mol, clearAromaticFlags=True)
    orbitals, entries, electrons = [], [], 0
    of_atom = [[] for _ in mol.GetAtoms()]
    n_pi = [0] * mol.GetNumAtoms()

    def add(atom, kind, energy, n):
        nonlocal electrons
        index = len(orbitals)
        orbitals.append(kind)
        of_atom[atom].append(index)
        electrons += n
        entries.extend((index, index, name, factor) for name, factor in energy)
        return index

    def p(atom, n, filled):
        kind = mol.GetAtomWithIdx(atom).GetSymbol() + str(n)
        charge = mol.GetAtomWithIdx(atom).GetFormalCharge()
        energy = [(H.get(kind, 1.0), 1)]
        if charge > 0 and n == 1:
            energy.append(("plus", 1))
        if charge < 0 and n == 2:
            energy.append(("minus", 1))
        return add(atom, kind, energy, filled)

    def couple(i, j, aromatic, order):
        entries.append((i, j, K.get("".join(sorted((orbitals[i], orbitals[j]))), 0.9), 1))
        double = 0.5 if aromatic else float(order > 1)
        entries.extend([(i, j, "double", double), (i, j, "single", 1 - double)])

    partners = set()
    bonds = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx(), int(b.GetBondTypeAsDouble())) for b in mol.GetBonds()]
    for (a, b, order), is_aromatic in zip(bonds, aromatic):
        for _ in range(order - 1):
            pair = p(a, 1, 1), p(b, 1, 1)
            couple(*pair, is_aromatic, order)
            partners.update([pair, pair[::-1]])
            n_pi[a] += 1
            n_pi[b] += 1
    for atom in mol.GetAtoms():
        x, symbol, charge = atom.GetIdx(), atom.GetSymbol(), atom.GetFormalCharge()
        outer = {"C": 4, "N": 5, "O": 6, "F": 7}[symbol] - charge
        used = sum(order for a, b, order in bonds if x in (a, b)) + atom.GetTotalNumHs()
        pairs, single = divmod(max(outer - used, 0), 2)
        if pairs > 0 and n_pi[x] == 0:
            p(x, 2, 2)
            pairs -= 1
        if pairs > 0 and symbol in "NO":
            energy = [("n_" + symbol, 1)]
            if n_pi[x] != 1:
                energy.append(("n_sp3" if n_pi[x] == 0 else "n_sp", 1))
            if charge < 0:
                energy.append(("minus", 1))
            add(x, "n", energy, 2)
        if single:
            p(x, 1, 1)
        if symbol == "C" and charge > 0 and n_pi[x] == 0:
            p(x, 1, 0)
        near = {n.GetIdx() for n in atom.GetNeighbors()}
        ring3 = any(a in near and b in near for a, b, _ in bonds)
        energy = [("s", 1), ("s_H", atom.GetTotalNumHs())]
        energy += [("s_" + symbol, 1)] * (symbol != "C") + [("s_ring3", 1)] * ring3
        energy += [("s_sp3", 1)] * (n_pi[x] == 0)
        add(x, "s", energy, 2)
        if symbol not in "NO":
            energy = [("u", 1), ("u_H", atom.GetTotalNumHs())]
            energy += [("u_F", 1)] * (symbol == "F") + [("u_ring3", 1)] * ring3
            add(x, "u", energy, 0)
    sort = [kind if kind in "snu" else "p" for kind in orbitals]
    for (a, b, order), is_aromatic in zip(bonds, aromatic):
        for i in of_atom[a]:
            for j in of_atom[b]:
                name = "".join(sorted((sort[i], sort[j])))
                if (i, j) in partners:
                    continue
                if name == "pp":
                    couple(i, j, is_aromatic, 1)
                elif name in START and not (name in ("ps", "pu") and (is_aromatic or order > 1)):
                    entries.append((i, j, name, 1))
    for own in of_atom:
        for q, i in enumerate(own):
            for j in own[q + 1 :]:
                name = "own_" + "".join(sorted((sort[i], sort[j])))
                if name in START:
                    entries.append((i, j, name, 1))
    return len(orbitals), entries, electrons


def gaps_of(molecules):
    """A function from parameters to the gaps of all molecules, in units of beta."""
    size = max(n for n, _, _ in molecules)
    fixed = np.zeros((len(molecules), size, size))
    cells, params, factors = [], [], []
    for m, (n, entries, _) in enumerate(molecules):
        fixed[m, range(n, size), range(n, size)] = -50
        for i, j, what, factor in entries:
            for a, b in {(i, j), (j, i)}:
                if isinstance(what, str):
                    cells.append((m * size + a) * size + b)
                    params.append(NAMES.index(what))
                    factors.append(factor)
                else:
                    fixed[m, a, b] += what * factor
    params, factors = np.array(params), np.array(factors, float)
    occupied = (np.array([electrons for _, _, electrons in molecules]) + 1) // 2
    rows = np.arange(len(molecules))

    def gaps(values):
        free = np.bincount(cells, values[params] * factors, fixed.size).reshape(fixed.shape)
        levels = np.linalg.eigvalsh(-(fixed + free))
        return levels[rows, occupied] - levels[rows, occupied - 1]

    return gaps


def ranks(values):
    return np.argsort(np.argsort(values, kind="stable"), kind="stable")


def correlations(a, b):
    return np.corrcoef(a, b)[0, 1], np.corrcoef(ranks(a), ranks(b))[0, 1]


def main():
    rng = random.Random(0)
    rows = rng.sample(list(csv.DictReader(open(sys.argv[1]))), 3000)
    wanted = np.array([float(row["gap_hartree"]) * 27.211386 for row in rows])
    molecules = [terms(row["smiles"]) for row in rows]
    train, test = gaps_of(molecules[:1500]), gaps_of(molecules[1500:])
    values = np.array(list(START.values()))

    def loss(values):
        pearson, spearman = correlations(train(values), wanted[:1500])
        return -pearson - 0.5 * spearman

    best, steps = loss(values), np.full(len(values), 0.1)
    while steps.max() > 0.01:
        for i in rng.sample(range(len(values)), len(values)):
            for sign in (1, -1):
                moved = values.copy()
                moved[i] = np.clip(moved[i] + sign * steps[i], -4, 4)
                if (value := loss(moved)) < best - 1e-5:
                    values, best = moved, value
                    steps[i] *= 1.3
                    break
            else:
                steps[i] *= 0.5
    values = values.round(2)
    print("Pearson, Spearman: fitted", correlations(train(values), wanted[:1500]))
    print("Pearson, Spearman: others", correlations(test(values), wanted[1500:]))
    print({name: float(value) for name, value in zip(NAMES, values)})


main()
