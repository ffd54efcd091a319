#!/usr/bin/env python3
"""A reward of your own: reads objects, prints one number for each.

    gfn train configs/tfbind8_tb_uniform.toml --name motif -s reward.kind=command \\
        -s 'reward.command=["python3", "scripts/scorer.py"]' -s reward.cache=100_000 \\
        -s reward.enumerate=true

gfn starts this program once and keeps it running. Objects arrive on stdin, one per line, with an
empty line after each batch; the answers go to stdout in the same order, one number per line, and
must be flushed. Whatever is printed to stderr is shown to the user. When stdin ends, so should
the program. With reward.enumerate, all 65,536 objects are scored first, for exact metrics.

The example scores DNA by how well it matches a motif anywhere, and by its GC content. A program
that scores objects one at a time can answer line by line and ignore empty lines.
"""

import sys

MOTIF = "TGATAC"


def score(sequence):
    windows = range(len(sequence) - len(MOTIF) + 1)
    matches = max(sum(a == b for a, b in zip(sequence[i:], MOTIF)) for i in windows)
    gc = sum(letter in "GC" for letter in sequence) / len(sequence)
    return 0.1 + matches / len(MOTIF) + 0.2 * gc


def main():
    batch = []
    for line in sys.stdin:
        if line.strip():
            batch.append(line.strip())
            continue
        # A real scorer would evaluate the whole batch at once here.
        for sequence in batch:
            print(score(sequence))
        sys.stdout.flush()
        batch.clear()


main()
