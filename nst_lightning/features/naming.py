"""Finding VGG-19's convolutions among a file's tensors, by the names that the field gives them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from nst_lightning.errors import UserError

_BLOCKS = {"VGG-11": (1, 1, 2, 2, 2), "VGG-13": (2, 2, 2, 2, 2), "VGG-16": (2, 2, 3, 3, 3), "VGG-19": (2, 2, 4, 4, 4)}
_VGG19 = _BLOCKS["VGG-19"]


def _indices(blocks: Sequence[int], first: int, step: int, pool: int) -> tuple[int, ...]:
    """Places of convolutions in a sequence: how far it is to the next one, and how much more across a pooling."""
    places, place = [], first
    for count in blocks:
        places += [place + step * i for i in range(count)]
        place += step * count + pool
    return tuple(places)


CONVOLUTIONS = _indices(_VGG19, 0, 2, 1)  # indices in torchvision's features
# Where a padding of its own precedes each convolution and a 1x1 one, for the input's colours, precedes them all.
_PADDED = _indices(_VGG19, 2, 3, 1)

# torchvision's 0.weight, in blocks maybe (slice1.0.weight); Gatys' conv1_1.weight; Keras' block1_conv1_W.
_NUMBERED = re.compile(r"(|.*?\.)(?:slice\d+\.)?(\d+)\.(weight|bias)")
_NAMED = re.compile(r"(|.*[./])(?:conv(\d)_(\d)|block(\d)_conv(\d))[._](weight|kernel|W|bias|b)")


class Stored(NamedTuple):
    """What a file has of a network."""

    # Pairs of weight (out, in, 3, 3) and bias (out,), float32, from conv1_1 on, as many as there are.
    convolutions: list[tuple[Tensor, Tensor]]
    # Weight (3, 3, 1, 1) and bias (3,) of a 1x1 convolution of RGB in [0, 1] before them, or None.
    input_layer: tuple[Tensor, Tensor] | None


_Place = tuple[int, int] | int
_Group = dict[_Place, dict[str, str]]  # place -> weight or bias -> key


def find_convolutions(tensors: Mapping[str, Tensor], path: Path) -> Stored:
    """Find VGG-19's convolutions, whatever wrapped the network when it was saved.

    Widths are free, so that narrow test networks have the same form. A file may end before conv5_4.

    Raises:
        UserError: If they are not there, or not VGG-19's.
    """
    tensors = _decoded(tensors)
    groups = {name: group for name, group in _groups(tensors).items() if group.keys() & {0, (1, 1)}}
    of_pictures = {name: group for name, group in groups.items() if _first(group, tensors).shape[1:2] == (3,)}
    groups = of_pictures or groups  # what else there is tells what is wrong
    if not groups:
        some = ", ".join(list(tensors)[:3]) or "nothing"
        raise UserError(
            f"{path}: must hold 'features.0.weight' or '0.weight' as torchvision's vgg19 does, or 'conv1_1.weight', "
            f"got {some} ..."
        )
    found = [(name, _collect(name[1], group, tensors, path)) for name, group in groups.items()]
    (first, stored), *others = found
    for name, other in others:
        if not _same(stored, other):
            raise UserError(
                f"{path}: must hold one network, got two that differ, '{first[1]}' and '{name[1]}'; save one of them"
            )
    return stored


def _decoded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put weights in place of 8-bit codes and the table of what they mean."""
    decoded = dict(tensors)
    for key in [key for key in tensors if key.endswith("_W_q")]:
        stem = key.removesuffix("_W_q")
        table = decoded.pop(f"{stem}_W_table", None)
        codes = decoded.pop(key)
        if table is not None and codes.dtype == torch.uint8 and table.ndim == 1 and len(table) > int(codes.max()):
            decoded[f"{stem}_W"] = table[codes.long()]
    return decoded


def _groups(tensors: Mapping[str, Tensor]) -> dict[tuple[bool, str], _Group]:
    """Keys by form and prefix, then by place in the network."""
    groups: dict[tuple[bool, str], _Group] = {}
    for key in tensors:
        place: _Place
        if match := _NAMED.fullmatch(key):
            block, index = (int(n) for n in match.group(2, 3, 4, 5) if n is not None)
            place, kind = (block, index), "bias" if match.group(6) in {"bias", "b"} else "weight"
        elif match := _NUMBERED.fullmatch(key):
            place, kind = int(match.group(2)), match.group(3)
        else:
            continue
        groups.setdefault((isinstance(place, tuple), match.group(1)), {}).setdefault(place, {})[kind] = key
    return groups


def _first(group: _Group, tensors: Mapping[str, Tensor]) -> Tensor:
    """Weight of the first layer, in PyTorch's order; empty if there is none."""
    key = group[0 if 0 in group else (1, 1)].get("weight")
    return torch.empty(0) if key is None else _in_order(tensors[key], 3)


def _in_order(weight: Tensor, channels: int) -> Tensor:
    """(out, in, 3, 3), also where it is stored as TensorFlow does: (3, 3, in, out)."""
    stored_otherwise = weight.ndim == 4 and weight.shape[:3] == (3, 3, channels) and weight.shape[2:] != (3, 3)
    return weight.permute(3, 2, 0, 1).contiguous() if stored_otherwise else weight


def _collect(prefix: str, group: _Group, tensors: Mapping[str, Tensor], path: Path) -> Stored:
    places: Sequence[_Place]
    if 0 not in group:
        places = [(block, index + 1) for block, count in enumerate(_VGG19, start=1) for index in range(count)]
    else:
        padded = tuple(_first(group, tensors).shape) == (3, 3, 1, 1)
        places = _PADDED if padded else CONVOLUTIONS
    _refuse_relatives(prefix, group, tensors, path)
    convolutions: list[tuple[Tensor, Tensor]] = []
    channels = 3
    for number, place in enumerate(places):
        if number and not any(later in group for later in places[number:]):
            break  # a file that ends here
        keys = group.get(place, {})
        missing = [kind for kind in ("weight", "bias") if kind not in keys]
        if missing:
            stem = f"{prefix}{place}" if isinstance(place, int) else f"{prefix}conv{place[0]}_{place[1]}"
            raise UserError(f"{path}: has no '{stem}.weight' and '{stem}.bias'; it is not VGG-19, choose another file")
        weight, bias = _in_order(tensors[keys["weight"]], channels), tensors[keys["bias"]]
        out = weight.shape[0] if weight.ndim else 0
        if weight.shape != (out, channels, 3, 3) or bias.shape != (out,):
            raise UserError(
                f"{path}: '{keys['weight']}' must be (C, {channels}, 3, 3), got {tuple(weight.shape)} with a bias of "
                f"{tuple(bias.shape)}; it is not VGG-19"
            )
        convolutions.append((_checked(weight, keys["weight"], path), _checked(bias, keys["bias"], path)))
        channels = out
    if places is not _PADDED:
        return Stored(convolutions, None)
    keys = group[0]
    bias = tensors[keys["bias"]] if "bias" in keys else torch.zeros(3)
    return Stored(convolutions, (_checked(tensors[keys["weight"]], keys["weight"], path), bias.float()))


def _checked(tensor: Tensor, key: str, path: Path) -> Tensor:
    """In float32."""
    stem = key.rsplit(".", 1)[0]
    if not tensor.is_floating_point():
        raise UserError(f"{path}: '{key}' must be floating-point numbers, got {tensor.dtype}; it is quantised")
    tensor = tensor.float()
    if not torch.isfinite(tensor).all():
        raise UserError(f"{path}: '{stem}' must be finite, got NaN or infinity; fetch the file again")
    return tensor


def _refuse_relatives(prefix: str, group: _Group, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Name VGG-19's relatives, whose files look much the same."""
    normalised = any(key.startswith(prefix) and key.endswith(".running_mean") for key in tensors)
    weights = {place for place, keys in group.items() if "weight" in keys and tensors[keys["weight"]].ndim == 4}
    for name, blocks in _BLOCKS.items():
        numbers = set(_indices(blocks, 0, 3 if normalised else 2, 1))
        names = {(block, index + 1) for block, count in enumerate(blocks, start=1) for index in range(count)}
        if weights in (numbers, names) and (normalised or name != "VGG-19"):
            called = f"{name} with batch normalisation" if normalised else name
            raise UserError(f"{path}: must be VGG-19, got {called}, which is another network; choose another file")
    if normalised:
        raise UserError(f"{path}: must be VGG-19, got a network with batch normalisation; choose another file")


def _same(one: Stored, other: Stored) -> bool:
    pairs = zip(one.convolutions, other.convolutions, strict=False)
    return len(one.convolutions) == len(other.convolutions) and all(
        torch.equal(a, b) for mine, theirs in pairs for a, b in zip(mine, theirs, strict=True)
    )
