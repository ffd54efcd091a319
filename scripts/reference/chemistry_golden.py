#!/usr/bin/env python3
"""Writes crates/gfn-envs/tests/chemistry/: molecules as RDKit sees them, for tests without RDKit.

    pip install rdkit
    python3 scripts/reference/chemistry_golden.py crates/gfn-envs/tests/chemistry

molecules.csv: two SMILES of each molecule in random orders, one of them in a Kekulé form; the number
of aromatic bonds; the number of bits of Chem.RDKFingerprint, and the first 16 hexadecimal digits of
the SHA-256 of its bits (256 bytes, lowest bit first); a made-up reward. modes.json: how many of the
molecules are separated modes, by descending reward (stable), at some thresholds.
"""

import csv
import hashlib
import json
import pathlib
import random
import sys

from rdkit import Chem, DataStructs, RDLogger

RDLogger.DisableLog("rdApp.*")

CHOSEN = """
C CC C=C C#C O N F CO C=O N#N C#N c1ccccc1 c1ccc2ccccc2c1 c1ccc2c(c1)ccc1ccccc12 c1cc[nH]c1 c1ccoc1
c1ccsc1 c1ccncc1 c1cnc[nH]1 c1ncncn1 c1nnn[nH]1 Cn1cnc2c1c(=O)n(C)c(=O)n2C c1ccc2[nH]ccc2c1
c1ccc2occc2c1 O=c1cc[nH]c(=O)[nH]1 O=C1C=CC(=O)C=C1 C1=CC=CC=CC=C1 c1ccc2cccc-2cc1
[O-][n+]1ccccc1 C[n+]1ccccc1 C[N+](=O)[O-] [O-][N+](=O)c1ccccc1 CC(=O)[O-] C[NH3+] [NH3+]CC(=O)[O-]
[C-]#[O+] [C-]#N C[N+]#[C-] C=[N+]=[N-] CN=[N+]=[N-] [CH3] C[CH2] C[C](C)C [OH] C[O] [CH3+] [CH3-]
[cH+]1cccccc1 [cH-]1cccc1 c1cc[o+]cc1 C1CC1 C1CCC1 C1=CC1 C1CO1 C1CN1 C1=CN=C1 C12CC1C2 C1CC12CC2
C12C3C1C3C2 C12C3C4C1C5C2C3C45 C1C2CC1C2 C12C3C1C23 C1CC2CCC1C2 C1CC2CCC1CC2 C1N2CN3CN1CN(C2)C3
C1C2CC3CC1CC(C2)C3 C1CCC2CCCCC2C1 C1CCC2(CC1)CCCCC2 C1CC2CC2C1 O=C1C2CC1C2 FC(F)(F)F FC(F)=C(F)F
N[C@@H](C)C(=O)O N[C@H](C)C(=O)O C[C@H](O)[C@@H](O)C C[C@H](O)[C@H](O)C C[C@H]1CC[C@@H](C)CC1
C[C@]12CC[C@H](C1)O2 O[C@H]1[C@@H](F)C1 F[C@](Cl)(Br)I OS(=O)(=O)C CS(C)=O CP(=O)(O)O OB(O)C
Clc1ccc(Br)cc1I CSc1ccccc1 O=C(Nc1ccccc1)C1CCNCC1 c1ccc(-c2ccccc2)cc1 c1ccc(CCc2ccccc2)cc1
O=c1nc2[nH]c3ccccc3nc-2c(=O)[nH]1 C=C=C C=C=C=C CC#CC#CC N#CC#N O=C=O N=C=O OC#C
""".split()


def random_molecule(rng):
    """At most nine atoms of C, N, O, F: a tree, then bonds at random, charges and chirality."""
    valence = {"C": 4, "N": 3, "O": 2, "F": 1}
    mol, free = Chem.RWMol(), []
    for i in range(rng.randint(4, 9)):
        symbol = rng.choices("CNOF", [6, 2, 2, 0.5])[0]
        atom = Chem.Atom(symbol)
        left = valence[symbol]
        if symbol in "NO" and rng.random() < 0.15:
            charge = rng.choice([1, -1])
            atom.SetFormalCharge(charge)
            left += charge
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
        places = [j for j in range(i) if free[j] > 0]
        free.append(left)
        if i:
            if not places or left == 0:
                return None
            j = rng.choice(places)
            mol.AddBond(i, j, Chem.BondType.SINGLE)
            free[i] -= 1
            free[j] -= 1
    orders = {2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}
    for _ in range(rng.randint(1, 9)):
        a, b = rng.sample(range(len(free)), 2)
        if min(free[a], free[b]) == 0:
            continue
        bond = mol.GetBondBetweenAtoms(a, b)
        if bond is None:
            mol.AddBond(a, b, Chem.BondType.SINGLE)
        elif bond.GetBondTypeAsDouble() < 3:
            bond.SetBondType(orders[int(bond.GetBondTypeAsDouble()) + 1])
        else:
            continue
        free[a] -= 1
        free[b] -= 1
    for atom, left in zip(mol.GetAtoms(), free):
        atom.SetNumExplicitHs(left)
        if atom.GetDegree() + left == 4 and left < 2 and rng.random() < 0.5:
            tags = Chem.ChiralType.CHI_TETRAHEDRAL_CW, Chem.ChiralType.CHI_TETRAHEDRAL_CCW
            atom.SetChiralTag(rng.choice(tags))
    mol = mol.GetMol()
    if Chem.SanitizeMol(mol, catchErrors=True) != Chem.SanitizeFlags.SANITIZE_NONE:
        return None
    return Chem.MolFromSmiles(Chem.MolToSmiles(mol))


def written(mol, rng, kekule):
    order = list(range(mol.GetNumAtoms()))
    rng.shuffle(order)
    mol = Chem.RenumberAtoms(mol, order)
    if kekule:
        Chem.Kekulize(mol, clearAromaticFlags=True)
    return Chem.MolToSmiles(mol, canonical=False, kekuleSmiles=kekule)


def main():
    rng = random.Random(0)
    molecules = {}
    for smiles in CHOSEN:
        mol = Chem.MolFromSmiles(smiles)
        molecules.setdefault(Chem.MolToSmiles(mol), mol)
    while len(molecules) < 320:
        mol = random_molecule(rng)
        if mol is not None:
            molecules.setdefault(Chem.MolToSmiles(mol), mol)
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    rows = []
    with open(folder / "molecules.csv", "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["smiles", "kekule", "aromatic_bonds", "n_bits", "sha256", "reward"])
        for mol in molecules.values():
            # Arrangements at double bonds are not kept.
            for bond in mol.GetBonds():
                bond.SetStereo(Chem.BondStereo.STEREONONE)
            bits = Chem.RDKFingerprint(mol)
            words = bytearray(256)
            for bit in bits.GetOnBits():
                words[bit // 8] |= 1 << bit % 8
            digest = hashlib.sha256(words).hexdigest()[:16]
            aromatic = sum(bond.GetIsAromatic() for bond in mol.GetBonds())
            reward = rng.randint(0, 60)
            smiles = written(mol, rng, False), written(mol, rng, True)
            table.writerow([*smiles, aromatic, bits.GetNumOnBits(), digest, reward])
            rows.append((bits, reward))
    modes = []
    for bits, reward in sorted(rows, key=lambda row: -row[1]):
        if all(DataStructs.TanimotoSimilarity(bits, mode) < 0.7 for mode, _ in modes):
            modes.append((bits, reward))
    thresholds = [0, 15, 30, 45, 55]
    counts = [sum(reward >= t for _, reward in modes) for t in thresholds]
    values = {"similarity": 0.7, "thresholds": thresholds, "counts": counts}
    (folder / "modes.json").write_text(json.dumps(values) + "\n")


main()
