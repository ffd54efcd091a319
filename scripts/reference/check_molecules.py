"""Checks sampled molecules with RDKit.

    pip install rdkit
    gfn sample RUN -n 5000 | python scripts/reference/check_molecules.py --max-atoms 9

Reads CSV with a column `object` of SMILES. Every one must be a connected molecule that RDKit accepts,
within the limits of the world, and different ones must be different molecules.
"""

import argparse
import csv
import sys

from rdkit import Chem, RDLogger

parser = argparse.ArgumentParser()
parser.add_argument("file", nargs="?", help="default: standard input")
parser.add_argument("--max-atoms", type=int, default=9)
parser.add_argument("--full", action="store_true", help="charges and radicals are allowed")
args = parser.parse_args()
RDLogger.DisableLog("rdApp.*")

bad, rows, names = [], 0, {}
for row in csv.DictReader(open(args.file) if args.file else sys.stdin):
    rows += 1
    smiles = row["object"]
    mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        bad.append((smiles, "not accepted"))
        continue
    if len(Chem.GetMolFrags(mol)) != 1:
        bad.append((smiles, "not connected"))
    if mol.GetNumHeavyAtoms() > args.max_atoms:
        bad.append((smiles, "too many atoms"))
    if {atom.GetSymbol() for atom in mol.GetAtoms()} - set("CNOF"):
        bad.append((smiles, "another element"))
    if not args.full and any(a.GetFormalCharge() or a.GetNumRadicalElectrons() for a in mol.GetAtoms()):
        bad.append((smiles, "a charge or a radical"))
    names.setdefault(Chem.MolToSmiles(mol), set()).add(smiles)

twice = [group for group in names.values() if len(group) > 1]
for smiles, reason in bad[:20]:
    print(f"{smiles}: {reason}")
for group in twice[:20]:
    print("one molecule, several names:", *sorted(group))
print(f"{rows} rows, {len(names)} molecules, {len(bad)} wrong, {len(twice)} with several names")
sys.exit(bool(bad or twice or not rows))
