"""``nst info``: says what this machine and this installation have, and what ``auto`` makes of it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

import nst_lightning
from nst_lightning.cli.plain import PlainParser, end_with_the_reader
from nst_lightning.errors import UserError
from nst_lightning.runs.provenance import source_commit

PACKAGES = ("torch", "lightning", "torchvision", "pillow")
DEVELOPMENT = {"test", "docs", "dev"}  # extras of those who change the package
ENVIRONMENT = (
    *("NST_VGG19_WEIGHTS", "NST_CUDA_GRAPHS", "TORCH_HOME", "XDG_CACHE_HOME", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
    *("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"),
)


def main(args: Sequence[str]) -> int:
    """Run ``nst info`` with the command line after the subcommand; returns the exit code."""
    parser = PlainParser(
        prog="nst info",
        description="Say which devices, precision, memory and versions there are, and where weights come from.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")
    options = parser.parse_args(list(args))
    end_with_the_reader()
    facts = {**_installation(), **_machine(), "weights": _weights()}
    print(json.dumps(facts, indent=1, ensure_ascii=False) if options.json else "\n".join(_lines(facts)))  # noqa: T201
    return 0


def _installation() -> dict[str, Any]:
    """What is installed; nothing is imported for it."""
    return {
        "nst_lightning": nst_lightning.__version__,
        "folder": str(Path(nst_lightning.__file__).parent),
        "commit": source_commit(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": platform.platform(terse=True),
        "packages": {name: _version(name) for name in PACKAGES},
        "extras": _extras(),
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
    }


def _version(package: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def _extras() -> dict[str, dict[str, Any]]:
    """Each optional extra of the package: whether it is installed, and the versions of what it brings."""
    try:
        about = metadata.metadata("nst_lightning")
    except metadata.PackageNotFoundError:  # run from its folder alone
        return {}
    requirements = [Requirement(line) for line in about.get_all("Requires-Dist") or []]
    extras = {}
    for extra in about.get_all("Provides-Extra") or []:
        if extra in DEVELOPMENT:
            continue
        mine = [one for one in requirements if _belongs(one, extra)]
        versions = {one.name: _version(one.name) for one in mine}
        missing = [f"{one.name}{one.specifier}" for one in mine if not _serves(one, versions[one.name])]
        if mine:  # there is something of it for this system
            extras[extra] = {"installed": not missing, "packages": versions, "missing": missing}
    return extras


def _belongs(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def _serves(requirement: Requirement, version: str | None) -> bool:
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def _machine() -> dict[str, Any]:
    """Devices, memory, and what ``auto`` takes; a fault of a driver is a fact like others."""
    import torch  # noqa: PLC0415 - so that nst info --help needs none of it

    from nst_lightning.hardware.accelerator import available, choose_accelerator  # noqa: PLC0415
    from nst_lightning.hardware.host import free_host_memory, host_memory  # noqa: PLC0415
    from nst_lightning.hardware.inventory import devices, gpu_support  # noqa: PLC0415

    facts: dict[str, Any] = {
        "memory": {"bytes": host_memory(), "free_bytes": free_host_memory()},
        "threads": {"torch": torch.get_num_threads(), "cores": os.cpu_count()},
        "gpu_support": gpu_support(),
        "devices": [device for kind in available() for device in devices(kind)],
    }
    chosen = choose_accelerator("auto")
    first: dict[str, Any] = next((device for device in facts["devices"] if device["accelerator"] == chosen.value), {})
    facts["auto"] = {
        "accelerator": chosen.value,
        "accelerator_reason": chosen.reason if len(facts["devices"]) > 1 else "there is no other",
        "precision": first.get("precision"),
        "precision_reason": first.get("precision_reason"),
    }
    return facts


def _weights() -> dict[str, dict[str, Any]]:
    """Where the weights of each network come from."""
    from nst_lightning.features.compact import EMBEDDED, EMBEDDED_SHA256  # noqa: PLC0415
    from nst_lightning.features.weights import DOWNLOAD_SIZE, vgg19_source  # noqa: PLC0415
    from nst_lightning.files.digest import sha256_of  # noqa: PLC0415

    source = vgg19_source()
    facts: dict[str, dict[str, Any]] = {"vgg19": {"place": source.place, "url": source.url}}
    if source.url:
        facts["vgg19"]["size"] = DOWNLOAD_SIZE
    else:
        try:
            facts["vgg19"] |= _file(source.fetch())
        except UserError as error:
            facts["vgg19"]["problem"] = str(error)
    for kind, path in EMBEDDED.items():
        facts[kind] = {"place": "package", "url": None, **_file(path)}
        if path.is_file() and sha256_of(path) != EMBEDDED_SHA256[kind]:
            facts[kind]["problem"] = f"{path}: is not the file of this version; install the package again"
    return facts


def _file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {"path": str(path), "problem": f"{path}: no such file"}
    return {"path": str(path.resolve()), "bytes": path.stat().st_size}


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    """The facts for people, a label and a line each."""
    from nst_lightning.hardware.inventory import in_words  # noqa: PLC0415

    commit = f" ({facts['commit']})" if facts["commit"] else ""
    yield _line("package", f"nst_lightning {facts['nst_lightning']}{commit} in {facts['folder']}")
    yield _line("Python", f"{facts['python']}, {facts['executable']}; {facts['system']}")
    yield _line("libraries", ", ".join(f"{name} {version or 'missing'}" for name, version in facts["packages"].items()))
    for extra, about in facts["extras"].items():
        versions = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
        lacks = f"not installed; pip install 'nst_lightning[{extra}]' brings {', '.join(about['missing'])}"
        yield _line("extra", f"{extra}: {versions if about['installed'] else lacks}")
    for device in facts["devices"]:
        yield _line("device", in_words(device))
    if len(facts["devices"]) == 1:
        built = f"is built for {facts['gpu_support']} and finds no" if facts["gpu_support"] else "is built without any"
        yield _line("GPU", f"none: this PyTorch {built} GPU")
    memory = facts["memory"]
    yield _line("memory", f"{_gib(memory['bytes'])}, of which {_gib(memory['free_bytes'])} free")
    auto = facts["auto"]
    yield _line("auto takes", f"{auto['accelerator']} ({auto['accelerator_reason']})")
    if auto["precision"]:
        yield _line("", f"{auto['precision']} ({auto['precision_reason']})")
    for name, about in facts["weights"].items():
        yield _line({"vgg19": "VGG-19"}.get(name, f"{name} VGG-19"), _weight(about))
    for name, value in facts["environment"].items():
        yield _line("environment", f"{name}={value}")


def _line(label: str, text: str) -> str:
    return f"{label:<14} {text}"


def _weight(facts: dict[str, Any]) -> str:
    where = "from the package" if facts["place"] == "package" else f"from {facts['place']}"
    if "problem" in facts:
        return f"{where}: {facts['problem']}"
    if facts["url"]:
        return f"would be downloaded once, {facts['size']} from {facts['url']}"
    return f"{where}: {facts['path']} ({facts['bytes'] / 2**20:.1f} MiB)"


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
