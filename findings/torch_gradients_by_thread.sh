#!/usr/bin/env bash
# PyTorch 2.14.1, backward() on a CPU: in which order are the gradients of one tensor added up that three products used?
# Expected: an order that the graph decides, so that the same graph of the same numbers gives the same gradient, whoever
# built its nodes; backward() itself runs in one thread here.
# Seen: nodes are numbered in the thread that makes them, from 0 in each, and the engine takes the highest number first.
# The same three products, made in the same order, one after the other, give another gradient, 1 in place of 0, if two of
# them were made in threads that had made other nodes before. A pool of threads that shares work out as it comes therefore
# gives other last bits from run to run, although no two threads ever work on one tensor.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv v
v/bin/pip install -q --disable-pip-version-check torch==2.14.1 numpy
v/bin/python - <<'P'
import sys
import threading

import torch

FACTORS = (1e8, 1.0, -1e8)  # in float32 1e8 + 1 is 1e8: the sum tells the order


def gradient(busy):
    """Of the sum of three products, each made in a thread of its own, some of which were busy before."""
    x, products = torch.ones(1, requires_grad=True), [None] * 3

    def make(index):
        if index in busy:
            y = torch.ones(1, requires_grad=True)
            for _ in range(100):
                y = y + 1
        products[index] = x * FACTORS[index]

    for index in range(3):
        thread = threading.Thread(target=make, args=(index,))
        thread.start()
        thread.join()  # one after the other
    torch.cat(products).sum().backward()
    return x.grad.item()


found = {busy: gradient(busy) for busy in ((), (1,), (0, 2))}
print("torch", torch.__version__, "gradient by the threads that were busy before:", found)
sys.exit(not (found[(1,)] == 0 and found[(0, 2)] == 1))
P
