#!/usr/bin/env python3
"""Writes crates/gfn-envs/tests/chemistry/hybridisation.csv: the hybridisation of atoms as RDKit assigns it, in
the order of a SMILES.

    pip install rdkit
    python3 scripts/reference/hybridisation.py crates/gfn-envs/tests/chemistry

S, 1, 2 and 3 stand for s, sp, sp2 and sp3, d and e for sp3d and sp3d2, . for what RDKit does not say. The
molecules are those of molecules.csv and some of heavier elements.
"""

import csv
import pathlib
import sys

from rdkit import Chem, RDLogger
from rdkit.Chem import HybridizationType as Type

RDLogger.DisableLog("rdApp.*")
LETTERS = {Type.S: "S", Type.SP: "1", Type.SP2: "2", Type.SP3: "3", Type.SP3D: "d", Type.SP3D2: "e"}
HEAVIER = """
O=P(O)(O)O CP(C)C C=P(C)(C)C c1ccpcc1 CP1(C)=CC=CN=C1C O=PO O=P[O-] FP(F)(F)(F)F
CS(N)(=O)=O O=S=O C[SH2+] C[S+](C)C CS(C)=O C=CSC=C c1ccsc1 CSSC FS(F)(F)(F)(F)F C=S N=C=S CC(=S)N
C=CS(=O)C=C ClC=C BrC=C IC=C Ic1ccccc1 CI=O c1cc[se]c1 C[Se]C C=C[Si](C)(C)C C=CB(C)C CB(O)O
[NH3+]C=C C=C[O-] C=C[NH-] [CH2]C=C [CH2]c1ccccc1 C=C[CH+]C=C [O]C=C C[N]C O=[N+]([O-])I C[N+](=O)[O-]
NC=O OC=C COC=O CNC(C)=O N=CN C=NN NN ON c1cc[nH+]cc1 C1COCC[NH2+]1 O=c1nccc[nH]1 C#CO C#CN
""".split()


def main():
    folder = pathlib.Path(sys.argv[1])
    with open(folder / "molecules.csv", encoding="utf-8") as file:
        known = [row["smiles"] for row in csv.DictReader(file)]
    with open(folder / "hybridisation.csv", "w", encoding="utf-8") as out:
        out.write("smiles,hybridisation\n")
        for smiles in known + HEAVIER:
            mol = Chem.MolFromSmiles(smiles)
            letters = [LETTERS.get(atom.GetHybridization(), ".") for atom in mol.GetAtoms()]
            out.write(f"{smiles},{''.join(letters)}\n")


if __name__ == "__main__":
    main()
