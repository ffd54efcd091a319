#!/usr/bin/env python3
"""HOMO-LUMO gaps in eV as a reward: reads SMILES, answers with semi-empirical quantum chemistry.

    pip install tblite rdkit
    gfn train spec.toml -s reward.kind=command -s 'reward.command=["python3", "scripts/gap_worker.py"]' \\
        -s reward.cache=1_000_000 -s reward.workers=8 -s reward.timeout_s=600

Protocol as in scripts/scorer.py: one SMILES per line, an empty line after each batch, one number per
SMILES. Geometry: RDKit's ETKDG with a fixed seed, relaxed by MMFF94 (UFF where MMFF94 has no
parameters); gap: GFN2-xTB on that geometry by tblite, or with --xtb by the program `xtb`. The same
SMILES gives the same number. The scale is not that of B3LYP: see --check.

A molecule that none of this works for (no SMILES, no geometry, no convergence) is never given a
value: the answer is a line `error: …` in the place of its number, with which gfn stops and names the
molecule, after a checkpoint. --failed VALUE answers with that number instead, and says so on stderr.

    python3 scripts/gap_worker.py --check data/qm9_smiles_gap.csv 20

compares with a table of columns smiles and gap_hartree, on every 20th part of it.
"""

import argparse
import os
import subprocess
import sys
import tempfile

# One thread per worker; gfn starts as many workers as it is told to.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rdkit import Chem, RDLogger
from rdkit.Chem import AllChem

HARTREE_EV = 27.211386
BOHR = 0.529177211


class Failure(Exception):
    """Why there is no gap."""


def geometry(smiles):
    """The molecule with hydrogens, and coordinates in Angstrom."""
    mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise Failure("RDKit does not accept the SMILES")
    mol = Chem.AddHs(mol)
    # The last attempt is for strained polycycles, which what is known of torsions keeps from closing.
    for random_coords, knowledge in [(False, True), (True, True), (True, False)]:
        settings = AllChem.ETKDGv3()
        settings.randomSeed = 42
        settings.useRandomCoords = random_coords
        settings.useExpTorsionAnglePrefs = settings.useBasicKnowledge = knowledge
        settings.ignoreSmoothingFailures = not knowledge
        settings.maxIterations = 100
        if AllChem.EmbedMolecule(mol, settings) == 0:
            break
    else:
        raise Failure("no geometry by ETKDG")
    if mol.GetNumAtoms() > 1:
        if AllChem.MMFFHasAllMoleculeParams(mol):
            status = AllChem.MMFFOptimizeMolecule(mol, maxIters=2000)
        elif AllChem.UFFHasAllMoleculeParams(mol):
            status = AllChem.UFFOptimizeMolecule(mol, maxIters=2000)
        else:
            raise Failure("no force field has all parameters")
        if status < 0:
            raise Failure("the force field could not be set up")
    return mol, mol.GetConformer().GetPositions()


def by_tblite(mol, places, charge, unpaired):
    from tblite.interface import Calculator

    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    calculator = Calculator("GFN2-xTB", numbers, places / BOHR, charge=charge, uhf=unpaired)
    calculator.set("verbosity", 0)
    try:
        result = calculator.singlepoint()
    except RuntimeError as error:
        raise Failure(f"GFN2-xTB: {error}") from error
    energies = np.ravel(result.get("orbital-energies"))
    occupations = np.ravel(result.get("orbital-occupations"))
    occupied = int(np.floor(occupations.sum() / 2 + 0.75))
    if not 0 < occupied < len(energies):
        raise Failure("no empty orbital in the basis")
    return (energies[occupied] - energies[occupied - 1]) * HARTREE_EV


def by_xtb(mol, places, charge, unpaired):
    lines = [str(mol.GetNumAtoms()), ""]
    for atom, (x, y, z) in zip(mol.GetAtoms(), places):
        lines.append(f"{atom.GetSymbol()} {x:.8f} {y:.8f} {z:.8f}")
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "molecule.xyz"), "w") as file:
            file.write("\n".join(lines) + "\n")
        command = ["xtb", "molecule.xyz", "--gfn", "2", "--sp"]
        command += ["--chrg", str(charge), "--uhf", str(unpaired)]
        try:
            run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        except FileNotFoundError:
            sys.exit("gap_worker.py: the program `xtb` is not installed; leave out --xtb for tblite")
        except subprocess.TimeoutExpired:
            raise Failure("xtb took more than 300 s")
    for line in run.stdout.splitlines():
        if "HOMO-LUMO gap" in line and "eV" in line:
            return float(line.replace("|", " ").split()[-2])
    raise Failure(f"xtb ended with {run.returncode} and no gap")


def gap(smiles, method):
    mol, places = geometry(smiles)
    charge = Chem.GetFormalCharge(mol)
    unpaired = sum(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())
    value = method(mol, places, charge, unpaired)
    if not np.isfinite(value):
        raise Failure(f"the gap is {value}")
    return value


def check(path, n, method):
    import csv

    rows = list(csv.DictReader(open(path)))
    rows = rows[len(rows) // (2 * n) :: len(rows) // n][:n]
    pairs = []
    for row in rows:
        try:
            pairs.append((float(row["gap_hartree"]) * HARTREE_EV, gap(row["smiles"], method)))
            print(f"{row['smiles']:30} table {pairs[-1][0]:7.3f} eV, here {pairs[-1][1]:7.3f} eV")
        except Failure as failure:
            print(f"{row['smiles']:30} {failure}")
    table, here = np.array(pairs).T
    ranks = [np.argsort(np.argsort(values)) for values in (table, here)]
    slope, offset = np.polyfit(here, table, 1)
    print(f"{len(pairs)} of {len(rows)}: Pearson {np.corrcoef(table, here)[0, 1]:.3f}, "
          f"Spearman {np.corrcoef(*ranks)[0, 1]:.3f}, table = {offset:.2f} + {slope:.2f} here")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--xtb", action="store_true", help="ask the program xtb, not tblite")
    parser.add_argument("--failed", type=float, help="the number for molecules without a gap")
    parser.add_argument("--check", nargs=2, metavar=("CSV", "N"), help="compare with a table")
    arguments = parser.parse_args()
    RDLogger.DisableLog("rdApp.*")
    method = by_xtb if arguments.xtb else by_tblite
    # What libraries print must not come between the numbers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if arguments.check:
        sys.stdout = answers
        check(arguments.check[0], int(arguments.check[1]), method)
        return
    for line in sys.stdin:
        smiles = line.strip()
        if not smiles:
            continue
        try:
            print(repr(float(gap(smiles, method))), file=answers, flush=True)
        except Failure as failure:
            print(f"gap_worker.py: {smiles}: {failure}", file=sys.stderr, flush=True)
            value = f"error: {failure}" if arguments.failed is None else arguments.failed
            print(value, file=answers, flush=True)


main()
