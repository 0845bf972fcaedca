"""Measure how many more pictures a minute two nodes of a Ray cluster make than one, each with one core of this machine.

``python tools/measure_ray.py [--pictures 12] [--size 128] [--evaluations 60] [--rounds 3]``; it needs the extra ``ray``
and two free cores. A rate counts from the moment when each worker has made its first picture, to the last picture:
beginning a worker takes some seconds, whatever comes after.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image
from ray.cluster_utils import Cluster

from nst_lightning.errors import UserNotice
from nst_lightning.gallery import Event, Gallery, RayEngine


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, value in {"pictures": 12, "size": 128, "evaluations": 60, "rounds": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default: {value}")
    asked = parser.parse_args()
    warnings.simplefilter("ignore", UserNotice)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        put_pictures(folder, asked.pictures, asked.size)
        for turn in range(asked.rounds):
            one = rate(folder / f"one_{turn}", cluster.address, 1, asked)
            second = cluster.add_node(num_cpus=1)
            two = rate(folder / f"two_{turn}", cluster.address, 2, asked)
            cluster.remove_node(second)
            ratios.append(two / one)
            print(
                f"round {turn + 1}: one node {one:.2f} a minute, two nodes {two:.2f}; {two / one:.2f} times", flush=True
            )
    print(f"median: {median(ratios):.2f} times")
    cluster.shutdown()


def put_pictures(folder: Path, count: int, size: int) -> None:
    """Write contents and a style of soft spots."""
    numbers = np.random.default_rng(5)
    for name in ["style.png", *(f"photos/{index}.png" for index in range(count))]:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        spots = Image.fromarray(numbers.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        spots.resize((size, size * 3 // 4), Image.Resampling.BICUBIC).save(path)


def rate(output: Path, address: str, nodes: int, asked: argparse.Namespace) -> float:
    """Pictures a minute of a cluster."""
    moments: list[float] = []

    def tell(event: Event) -> None:
        if event.kind == "picture":
            moments.append(time.perf_counter())

    engine = RayEngine(address)
    try:
        options = {"model.evaluations": asked.evaluations}
        folder = output.parent
        gallery = Gallery(output, [folder / "photos"], [folder / "style.png"], size=asked.size, options=options)
        summary = gallery.make(tell, engine)
    finally:
        engine.close()
    assert len(summary.made) == asked.pictures, summary.failed
    return 60 * (len(moments) - nodes) / (moments[-1] - moments[nodes - 1])


if __name__ == "__main__":
    main()
