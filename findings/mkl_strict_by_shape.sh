#!/usr/bin/env bash
# PyTorch 2.14.1 with Intel's oneMKL, products of float32 matrices on AMD EPYC: does MKL_CBWR=AVX2,STRICT give the same
# bits with any number of threads?
# Expected: yes, for every product. Intel promises it for GEMM in strict mode, and MKL_VERBOSE says that the call runs
# with CNR:...,STRICT.
# Seen: it depends on which of two factors comes first. For H (20, n) and v (3, n), n being thousands, H vᵀ has the same
# bits with one and two threads, and v Hᵀ, the same sums laid out the other way round, has not. So whoever needs the bits
# must try each shape, or keep the order that was tried.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv v
v/bin/pip install -q --disable-pip-version-check torch==2.14.1 numpy
cat > product.py <<'P'
import sys

import torch

torch.manual_seed(0)
rows, others = torch.randn(20, 4608), torch.randn(3, 4608)
products = {"H vT": lambda: rows @ others.T, "v HT": lambda: others @ rows.T}
same = {}
for name, product in products.items():
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(product())
    same[name] = torch.equal(*found)
print("torch", torch.__version__, "the same bits with one and two threads:", same)
sys.exit(not (same["H vT"] and not same["v HT"]))
P
MKL_CBWR=AVX2,STRICT MKL_VERBOSE=1 v/bin/python product.py | grep -E "SGEMM.*STRICT|torch" | cut -c1-200
