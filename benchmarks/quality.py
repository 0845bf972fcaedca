"""Presets against each other on pairs of pictures: scores, and a sheet to look at.

    python benchmarks/quality.py --contents a.jpg b.jpg --styles x.jpg y.jpg --presets gatys painterly --equal time

Every content meets every style. The first preset runs as it is; the others get its wall time (`--equal time`), its
number of evaluations (`--equal evaluations`) or run as they are (`--equal nothing`). `--size` is the long side of all.
What the scores are, and that they were fixed before any preset was tuned, says `scores.py`. Results go to a folder:
`quality.json`, a picture for each run, and `sheet.jpg`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from scores import judge, peak_signal_to_noise
from torch import Tensor

from nst_lightning import StyleTransferData
from nst_lightning.cli.benchmark import environment
from nst_lightning.features import VGG19
from nst_lightning.images import read_image, write_image
from nst_lightning.images.resize import resize

ROW = 256  # pixels, height of a picture on the sheet


def run(preset: str, content: Path, style: Path, folder: Path, options: list[str]) -> tuple[Path, dict[str, Any]]:
    """Run ``nst fit`` in a process of its own; returns the picture and what it took."""
    name = f"{content.stem}_{style.stem}_{Path(preset).stem}".replace(":", "_")
    output = folder / f"{name}.png"
    command = [sys.executable, "-m", "nst_lightning", "fit", "--config", preset, "--data.content", str(content)]
    command += ["--data.style", str(style), "--output", str(output), "--snapshot_every", "0"]
    command += ["--trainer.default_root_dir", str(folder / "runs"), "--trainer.enable_progress_bar", "false"]
    begin = time.perf_counter()
    subprocess.run([*command, *options], check=True, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - begin
    newest = max((folder / "runs").glob("*/metrics.csv"), key=lambda path: path.stat().st_mtime)
    with newest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return output, {
        "preset": preset,
        "wall": seconds,
        "seconds": float(rows[-1]["seconds"]),
        "evaluations": len(rows),
    }


def limits(equal: str, first: dict[str, Any] | None) -> list[str]:
    """Options that give a run no more than the first one had."""
    if first is None or equal == "nothing":
        return []
    if equal == "evaluations":
        return ["--model.evaluations", str(first["evaluations"])]
    seconds = max(1, round(first["seconds"]))
    days, rest = divmod(seconds, 86400)
    limit = f"{days:02d}:{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    # A long schedule, so that the clock alone ends it.
    return ["--trainer.max_time", limit, "--model.evaluations", "100000"]


def pictures_of(content: Path, style: Path, size: int) -> tuple[Tensor, Tensor]:
    """Content and style as a run of the final size sees them."""
    data = StyleTransferData(str(content), str(style), size=size)
    data.setup()
    images = data.pictures()
    return images.content, images.styles[0][0]


def fingerprint(path: Path) -> str:
    """Which picture it was, since results go without them."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def sheet(rows: list[list[Tensor]]) -> Tensor:
    """Rows of pictures of one height, side by side."""
    strips = []
    for row in rows:
        cells = [resize(p, (ROW, max(1, round(ROW * p.shape[-1] / p.shape[-2])))).clamp(0, 1) for p in row]
        strips.append(torch.cat([torch.nn.functional.pad(cell, (0, 6, 0, 6), value=1.0) for cell in cells], dim=-1))
    width = max(strip.shape[-1] for strip in strips)
    return torch.cat([torch.nn.functional.pad(s, (0, width - s.shape[-1]), value=1.0) for s in strips], dim=-2)


def table(results: list[dict[str, Any]], presets: list[str]) -> str:
    """Medians by preset, and on how many pairs the first one is ahead."""
    names = ("quality", "unseen", "patches", "structure", "spectrum", "clipped", "seconds", "evaluations")
    lines = [f"{'preset':12}" + "".join(f"  {name:>11}" for name in names) + "  first ahead"]
    pairs: dict[tuple[str, str], dict[str, float]] = {}
    for row in results:
        pairs.setdefault((row["content"], row["style"]), {})[row["preset"]] = row["quality"]
    for preset in presets:
        mine = [row for row in results if row["preset"] == preset]
        if mine:
            medians = "".join(f"  {statistics.median(row[name] for row in mine):11.3f}" for name in names)
            both = [scores for scores in pairs.values() if preset in scores and presets[0] in scores]
            ahead = sum(scores[presets[0]] > scores[preset] for scores in both)
            lines.append(f"{preset:12}{medians}" + (f"  {ahead} of {len(both)}" if preset != presets[0] else ""))
    return "\n".join(lines)


def main() -> None:
    """Run all pairs, write results as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contents", nargs="+", type=Path, required=True)
    parser.add_argument("--styles", nargs="+", type=Path, required=True)
    parser.add_argument("--presets", nargs="+", default=["painterly", "gatys"])
    parser.add_argument("--equal", choices=("time", "evaluations", "nothing"), default="time")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--identity", action="store_true", help="also style each content by itself")
    parser.add_argument("--output", type=Path, default=Path("runs/quality"))
    arguments = parser.parse_args()
    folder: Path = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    network = VGG19(units="normalised")
    common = ["--data.size", str(arguments.size), "--data.side", "long"]
    pairs = [(content, style) for content in arguments.contents for style in arguments.styles]
    pairs += [(content, content) for content in arguments.contents if arguments.identity]
    results: list[dict[str, Any]] = []
    identity: list[dict[str, Any]] = []
    rows: list[list[Tensor]] = []
    for content, style in pairs:
        images = pictures_of(content, style, arguments.size)
        rows.append([*images])
        first = None
        for preset in arguments.presets:
            output, took = run(preset, content, style, folder, [*common, *limits(arguments.equal, first)])
            first = first or took
            picture = read_image(output).pixels
            rows[-1].append(picture)
            names = {"content": content.name, "style": style.name, "size": arguments.size}
            hashes = {"content_sha256": fingerprint(content), "style_sha256": fingerprint(style)}
            if content == style:
                identity.append({**names, **took, "decibels": peak_signal_to_noise(picture, images[0])})
                print(identity[-1], flush=True)
            else:
                results.append({**names, **hashes, **took, **judge(network, picture, *images).as_dict()})
                print({k: round(v, 3) if isinstance(v, float) else v for k, v in results[-1].items()}, flush=True)
        report = {**environment(), "equal": arguments.equal, "results": results, "identity": identity}
        (folder / "quality.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
        write_image(folder / "sheet.jpg", sheet(rows))
    print(table(results, arguments.presets))


if __name__ == "__main__":
    main()
