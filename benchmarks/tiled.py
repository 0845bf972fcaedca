"""A process of its own that evaluates a square picture a few times, whole or in tiles, and prints what it took."""

from __future__ import annotations

import json
import sys
import time

import torch
from memory import resident
from programs import EXTRACTORS, pictures

from nst_lightning.hardware.accelerator import compute_dtype
from nst_lightning.hardware.memory import freed_memory_kept
from nst_lightning.images.resize import resize
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.objective import Objective, default_terms
from nst_lightning.optim import LBFGS

EVALUATIONS, LARGE = 2, 4096  # of pictures larger than that one, which takes minutes
STYLE_SIZE = 512  # the same for all, so that what grows is what the picture takes
IMAGE = 12  # bytes a pixel


def main() -> None:
    """Run what the arguments say: extractor, size, tile (0 for the whole picture), precision."""
    extractor, size, tile, precision = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    with freed_memory_kept(large=tile > 0 or size > 1200):  # as `nst fit` does
        measure(extractor, size, tile, precision)


def measure(extractor: str, size: int, tile: int, precision: str) -> None:
    """Evaluate, and print seconds and bytes."""
    before = resident()
    network = EXTRACTORS[extractor]()
    network.set_compute_dtype(compute_dtype(precision))
    evaluate = Evaluator(Objective(default_terms()), network, tile or None)
    content, style = pictures(STYLE_SIZE, "cpu")
    content = resize(content, (size, size))
    evaluate.prepare(content, [(style, 1.0)])
    image = content.requires_grad_()  # no second copy
    optimizer = LBFGS([image], history_size=3, history_dtype="bfloat16")
    seconds = []
    for _ in range(EVALUATIONS if size <= LARGE else 1):
        begin = time.perf_counter()
        optimizer.zero_grad()
        evaluate(image).loss.backward()
        seconds.append(time.perf_counter() - begin)
        optimizer.step()
    use = network.memory(evaluate.objective.layers)
    kept = use.values["relu4_2"] * (2 if tile else use.itemsize)
    buffers = int((2 * IMAGE + kept) * size * size) + optimizer.memory()
    print(json.dumps({"seconds": min(seconds), "bytes": resident() - before, "buffers": buffers}))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
