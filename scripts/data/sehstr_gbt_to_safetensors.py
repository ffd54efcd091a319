#!/usr/bin/env python3
"""Converts the boosted trees that stand in for the sEH proxy on block strings to safetensors.

    pip install numpy
    scripts/data/sehstr_gbt_to_safetensors.py sehstr_gbtr.pkl data/sehstr_gbt.safetensors

The pickle is in https://github.com/niupuhua1234/Sub-EB (MIT), gfn-subeb/data_bio/sehstr, and in
https://github.com/maxwshen/gflownet (no licence), datasets/sehstr: a HistGradientBoostingRegressor
of scikit-learn 1.0.2, which is not needed here. The result has the SHA-256
b2d9647c03c33d5f61e740ae80e0d78ea5559aba77f88e3bb5eebbefff2c5c59.
"""

import json
import sys

import numpy
from plain_pickle import load

METADATA = {
    "source": "niupuhua1234/Sub-EB gfn-subeb/data_bio/sehstr/sehstr_gbtr.pkl "
    "(MIT; identical bytes in maxwshen/gflownet)",
    "semantics": "x = one-hot(6 positions x 18 blocks) f64; go left iff x[feature] <= threshold; "
    "left/right are indices local to the tree; feature==-1 is a leaf; "
    "prediction = baseline + sum(value)",
}
TYPES = {"f8": "F64", "i4": "I32"}


def tensors_of(model):
    """The model as flat arrays, one entry per node, tree by tree."""
    trees = [predictor.nodes for group in model._predictors for predictor in group]
    nodes = numpy.concatenate(trees)
    if nodes["is_categorical"].any():
        sys.exit("the trees split on categories; expected thresholds only")
    leaf = nodes["is_leaf"].astype(bool)
    inner = lambda name, at_leaves: numpy.where(leaf, at_leaves, nodes[name])
    return {
        "baseline": numpy.reshape(model._baseline_prediction, 1).astype("<f8"),
        "threshold": inner("num_threshold", 0.0).astype("<f8"),
        "value": nodes["value"].astype("<f8"),
        "feature": inner("feature_idx", -1).astype("<i4"),
        "left": inner("left", 0).astype("<i4"),
        "right": inner("right", 0).astype("<i4"),
        "tree_offset": numpy.cumsum([0] + [len(tree) for tree in trees]).astype("<i4"),
    }


def write(path, tensors, metadata):
    """Header length, header padded to a multiple of 8 bytes, data in the order of the header."""
    header, offset = {"__metadata__": metadata}, 0
    for name, tensor in tensors.items():
        end = offset + tensor.nbytes
        kind = TYPES[tensor.dtype.str[1:]]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            out.write(tensor.tobytes())


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    tensors = tensors_of(load(sys.argv[1], blank=["sklearn"]))
    write(sys.argv[2], tensors, METADATA)
    print(f"{len(tensors['tree_offset']) - 1} trees, {len(tensors['value'])} nodes")


if __name__ == "__main__":
    main()
