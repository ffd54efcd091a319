"""The papers' graph transformer in numpy, as a reference for `model.kind = "graph_transformer"`.

Written from recursionpharma/gflownet's `graph_transformer.py` and the layers of PyTorch Geometric that it
uses, with lists of edges and the papers' parameters, in double precision. It writes some molecules, what
the network gives for them, and its parameters as gfn has them:

    pip install numpy
    python3 scripts/reference/graph_transformer.py crates/gfn-models/tests/data/graph_transformer.safetensors
"""

import json
import sys

import numpy as np

ATOMS, ELEMENTS, HYDROGENS, BONDS = 5, 4, 5, 4
WIDTH, LAYERS, HEADS, FEED_FORWARD, HEAD_HIDDEN = 8, 2, 2, 12, 6
CONDITION = 3
PAIRS = [(i, j) for i in range(ATOMS) for j in range(i + 1, ATOMS)]
# By head: numbers of the whole, of each atom, of each pair, in the order of actions.
BLOCKS = {
    "forward": [("whole", 1 + 4), ("add_atom", 4), ("add_bond", 1), ("set_order", 2)],
    "backward": [("remove_atom", 1), ("remove_bond", 1), ("unset_order", 1), ("whole", 16)],
    "flow": [("whole", 1)],
}
ATOM_BLOCKS = {"add_atom", "remove_atom"}

rng = np.random.default_rng(7)


def linear(n_in, n_out, bias=True):
    # Twice what PyTorch starts with: what differs between molecules shows in the numbers.
    bound = 2.0 / np.sqrt(n_in)
    weight = rng.uniform(-bound, bound, (n_in, n_out))
    return weight, rng.uniform(-bound, bound, n_out) if bias else np.zeros(n_out)


def apply(layer, x):
    weight, bias = layer
    return x @ weight + bias


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def unleaky(x):
    return np.where(x > 0, x, 100.0 * x)


def perceptron(*sizes):
    return [linear(a, b) for a, b in zip(sizes, sizes[1:])]


def run(layers, x):
    for layer in layers[:-1]:
        x = leaky(apply(layer, x))
    return apply(layers[-1], x)


def graph_norm(x):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5)


class Network:
    """Its parameters, as the papers have them."""

    def __init__(self):
        self.nodes = perceptron(ELEMENTS + HYDROGENS, WIDTH, WIDTH, WIDTH)
        self.edges = perceptron(BONDS, WIDTH, WIDTH, WIDTH)
        self.condition = perceptron(CONDITION, WIDTH, WIDTH, WIDTH)
        self.layers = [
            {
                "messages": linear(WIDTH, WIDTH, bias=False),
                "query": linear(2 * WIDTH, HEADS * WIDTH),
                "key": linear(2 * WIDTH, HEADS * WIDTH),
                "value": linear(2 * WIDTH, HEADS * WIDTH),
                "edge": linear(WIDTH, HEADS * WIDTH, bias=False),
                "skip": linear(2 * WIDTH, HEADS * WIDTH),
                "out": linear(HEADS * WIDTH, WIDTH),
                "film": linear(WIDTH, 2 * WIDTH),
                "feed_forward": perceptron(WIDTH, FEED_FORWARD, WIDTH),
            }
            for _ in range(LAYERS)
        ]
        self.heads = {
            head: {
                name: perceptron(2 * WIDTH if name == "whole" else WIDTH, HEAD_HIDDEN, size)
                for name, size in blocks
            }
            for head, blocks in BLOCKS.items()
        }

    def __call__(self, atoms, bonds):
        """Outputs by head for atoms (slot, element, hydrogens) and bonds (slot, slot, kind)."""
        slots = [slot for slot, _, _ in atoms]
        n = len(atoms)
        codes = np.zeros((n, ELEMENTS + HYDROGENS))
        for code, (_, element, hydrogens) in zip(codes, atoms):
            code[element] = code[ELEMENTS + hydrogens] = 1.0
        condition = run(self.condition, np.zeros(CONDITION))
        x = np.vstack([run(self.nodes, codes), condition])
        source, target, edge = [], [], []
        rows = run(self.edges, np.eye(BONDS))
        for i, j, kind in bonds:
            i, j = slots.index(i), slots.index(j)
            source, target, edge = source + [i, j], target + [j, i], edge + [rows[kind]] * 2
        unit = np.eye(WIDTH)[0]
        for i in range(n):
            source, target, edge = source + [n, i], target + [i, n], edge + [unit] * 2
        loops = []
        for i in range(n + 1):
            incoming = [e for e, to in zip(edge, target) if to == i]
            loops.append(np.mean(incoming, axis=0) if incoming else np.zeros(WIDTH))
        source, target, edge = source + list(range(n + 1)), target + list(range(n + 1)), edge + loops
        for layer in self.layers:
            x = self.layer(layer, x, list(zip(source, target, edge)), condition)
        nodes, virtual = x[:n], x[n]
        mean = nodes.mean(axis=0) if n else np.zeros(WIDTH)
        summary = np.concatenate([mean, virtual])
        outputs = {}
        for head, blocks in BLOCKS.items():
            parts = []
            for name, size in blocks:
                layers = self.heads[head][name]
                if name == "whole":
                    parts.append(run(layers, summary))
                elif name in ATOM_BLOCKS:
                    part = np.zeros((ATOMS, size))
                    for slot, node in zip(slots, nodes):
                        part[slot] = run(layers, node)
                    parts.append(part.ravel())
                else:
                    part = np.zeros((len(PAIRS), size))
                    for place, (i, j) in enumerate(PAIRS):
                        if i in slots and j in slots:
                            u, v = nodes[slots.index(i)], nodes[slots.index(j)]
                            part[place] = run(layers, u + v)
                    parts.append(part.ravel())
            outputs[head] = np.concatenate(parts)
        return outputs

    def layer(self, layer, x, edges, condition):
        normal = graph_norm(x)
        sent = np.zeros_like(x)
        for i, j, e in edges:
            sent[j] += np.maximum(normal[i] + e, 0.0) + 1e-7
        sent = apply(layer["messages"], sent + normal)
        both = np.hstack([normal, sent])
        query, key, value = (apply(layer[name], both) for name in ("query", "key", "value"))
        mixed = np.zeros_like(query)
        for j in range(len(x)):
            incoming = [(i, apply(layer["edge"], e)) for i, to, e in edges if to == j]
            for head in range(HEADS):
                of = slice(head * WIDTH, (head + 1) * WIDTH)
                keys = np.array([key[i, of] + e[of] for i, e in incoming])
                values = np.array([value[i, of] + e[of] for i, e in incoming])
                scores = keys @ query[j, of] / np.sqrt(WIDTH)
                weights = np.exp(scores - scores.max())
                mixed[j, of] = weights @ values / weights.sum()
        mixed = apply(layer["out"], mixed + apply(layer["skip"], both))
        scale, shift = np.split(apply(layer["film"], condition), 2)
        x = x + mixed * scale + shift
        return x + run(layer["feed_forward"], graph_norm(x))

    def parameters(self):
        """The same function by gfn's parameters: what is constant is part of what it meets."""
        out = {}

        def put(name, layer):
            out[f"{name}.weight"], out[f"{name}.bias"] = layer

        first, second, third = self.nodes
        condition = run(self.condition, np.zeros(CONDITION))
        # The row that the perceptron on nodes turns into the condition's embedding.
        hidden = unleaky(np.linalg.solve(third[0].T, condition - third[1]))
        free = unleaky(np.linalg.solve(second[0].T, hidden - second[1]))
        rows = first[0].copy()
        rows[:ELEMENTS] += first[1]
        out["embedding"] = np.vstack([rows, np.zeros(WIDTH), free])
        put("nodes.0", second)
        put("nodes.1", third)
        out["edges"] = run(self.edges, np.eye(BONDS))
        for i, layer in enumerate(self.layers):
            name = f"layers.{i}."
            out[name + "messages.weight"] = layer["messages"][0]
            together = [layer[part] for part in ("query", "key", "value")]
            put(name + "attention.in", [np.concatenate(part, axis=-1) for part in zip(*together)])
            out[name + "attention.edges.weight"] = layer["edge"][0]
            put(name + "attention.skip", layer["skip"])
            scale, shift = np.split(apply(layer["film"], condition), 2)
            weight, bias = layer["out"]
            put(name + "attention.out", (weight * scale, bias * scale + shift))
            put(name + "feed_forward.in", layer["feed_forward"][0])
            put(name + "feed_forward.out", layer["feed_forward"][1])
        for head, blocks in self.heads.items():
            for name, (hidden, last) in blocks.items():
                pairs = name != "whole" and name not in ATOM_BLOCKS
                put(f"{head}.hidden.{name}", (hidden[0], hidden[1] / 2 if pairs else hidden[1]))
                put(f"{head}.head" if name == "whole" else f"{head}.{name}", last)
        return {f"parameter.{name}": np.atleast_2d(value) for name, value in out.items()}


def row(atoms, bonds):
    """A molecule as gfn observes it."""
    cells = np.full(2 * ATOMS + len(PAIRS), -1)
    for slot, element, hydrogens in atoms:
        cells[2 * slot], cells[2 * slot + 1] = element, hydrogens
    for i, j, kind in bonds:
        cells[2 * ATOMS + PAIRS.index((min(i, j), max(i, j)))] = kind
    return cells


MOLECULES = [
    ([], []),
    ([(3, 2, 4)], []),
    ([(0, 1, 0), (1, 0, 2)], [(0, 1, 1)]),
    # A ring with something on it, not in the first slots.
    ([(1, 0, 1), (2, 3, 0), (3, 0, 2), (4, 1, 1)], [(1, 2, 0), (2, 4, 3), (1, 4, 3), (3, 4, 0)]),
    # Of two pieces.
    ([(0, 2, 3), (2, 2, 3), (4, 0, 0)], [(4, 0, 2)]),
    ([(i, i % 4, i) for i in range(5)], [(i, j, (i + j) % 4) for i, j in PAIRS if (i * j) % 3]),
]


def save(path, tensors):
    """Safetensors: the length of a header, the header, the numbers."""
    header, data = {}, b""
    for name, tensor in tensors.items():
        kind = "I32" if tensor.dtype.kind == "i" else "F32"
        numbers = tensor.astype("<i4" if kind == "I32" else "<f4").tobytes()
        place = [len(data), len(data) + len(numbers)]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": place}
        data += numbers
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + data)


def main():
    network = Network()
    outputs = [network(*molecule) for molecule in MOLECULES]
    tensors = {"states": np.array([row(*molecule) for molecule in MOLECULES])}
    for head in BLOCKS:
        tensors[head] = np.array([of_all[head] for of_all in outputs])
    save(sys.argv[1], tensors | network.parameters())


if __name__ == "__main__":
    main()
