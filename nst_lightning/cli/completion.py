"""``nst completion``: prints the script by which a shell completes subcommands, options, presets and files.

The library shtab writes it, once, from parsers of argparse: to complete a word starts no Python.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shlex
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nst_lightning import cli
from nst_lightning.cli import stylize
from nst_lightning.cli.page import PAGE
from nst_lightning.cli.plain import PlainParser, end_with_the_reader
from nst_lightning.cli.words import SHELLS, TABLE, Value, words_of
from nst_lightning.errors import UserError

_BASH = """\
%(name)s() {
  compgen -W "%(words)s" -- "$1"
  compgen %(option)s -- "$1"
}"""
_ZSH = """\
%(name)s() {
  local offered=(%(words)s)
  _alternative "values:value:($offered)" "paths:path:_files%(option)s"
}"""
_FISH = """\
function %(name)s
  for word in %(words)s
    echo $word
  end
  %(paths)s
end"""


def main(args: Sequence[str]) -> int:
    """Run ``nst completion`` with the command line after the subcommand; returns the exit code."""
    parser = PlainParser(
        prog="nst completion",
        description="Print the script by which a shell completes subcommands, options, presets and files. Save it "
        "where the shell looks for it (bash: ~/.local/share/bash-completion/completions/nst; zsh: _nst in a folder of "
        "$fpath; fish: ~/.config/fish/completions/nst.fish), and anew after an update.",
        allow_abbrev=False,
    )
    shells = f"{', '.join(SHELLS[:-1])} or {SHELLS[-1]}"
    parser.add_argument("shell", nargs="?", metavar="SHELL", help=shells)
    shell = parser.parse_args(list(args)).shell
    if shell not in SHELLS:
        mine = Path(os.environ.get("SHELL", "")).name
        raise UserError(
            f"shell: must be {shells}, got {repr(shell) if shell else 'nothing'}; "
            f"type: nst completion {mine if mine in SHELLS else SHELLS[0]}"
        )
    if importlib.util.find_spec("shtab") is None:
        raise UserError("shtab: must be installed, it is not; pip install 'nst_lightning[completion]'")
    end_with_the_reader()
    print(script(shell))  # noqa: T201
    return 0


def script(shell: str) -> str:
    """The script for bash, zsh or fish."""
    import shtab  # noqa: PLC0415 - an extra

    root = argparse.ArgumentParser("nst", add_help=False)
    root.add_argument("-h", "--help", action="store_true", help="list the subcommands")
    root.add_argument("-V", "--version", action="store_true", help="say which version this is")
    subcommands, explained = root.add_subparsers(), dict(_helps())
    for name, (module, text) in cli.SUBCOMMANDS.items():
        parser = subcommands.add_parser(name, add_help=False, help=text, description=text)
        parser.add_argument("-h", "--help", action="store_true", help="explain the options")
        takes_those_of_fit = name == "fit" or name not in TABLE
        for typed, value in words_of(name, module).items():
            _add(parser, typed, value, explained.get(typed.split()[-1]) if takes_those_of_fit else None)
    written: str = shtab.complete(root, shell)
    # shtab has zsh complete the first of several arguments alone; of _arguments, * means all that follow.
    return re.sub(r'"\(\*\)::?', '"*:', written) if shell == "zsh" else written


def _helps() -> Iterator[tuple[str, str]]:
    """Options on the pages of ``nst fit --help`` and ``nst stylize --help``, and what these say of them."""
    for line in f"{PAGE}\n{stylize.PAGE}".splitlines():
        found = re.match(r"(?:\S.*? {2,}| {2,}|-\w, )?(--[\w.-]+)(?: \S+)* {2,}(\S.*)$", line)
        if found:
            yield found[1], found[2]


def _add(parser: argparse.ArgumentParser, typed: str, value: Value | None, text: str | None) -> None:
    names, more = typed.split(), dict[str, Any](help=text)
    if value is None:
        parser.add_argument(*names, action="store_true", **more)
        return
    if value.many:
        more["nargs"] = "+" if names[0].startswith("-") else "*"
    elif names[-1] == "--config":  # may be given several times
        more["action"] = "append"
    action = parser.add_argument(*names, **more)
    if value.paths:
        action.complete = _words_or_paths(value)  # type: ignore[attr-defined]
    elif value.words:
        action.choices = value.words


def _words_or_paths(value: Value) -> dict[str, Any]:
    """Offer words beside files or folders: a function in each shell's language, as shtab takes it."""
    words, folders = shlex.join(value.words), value.paths == "folders"
    # The script for bash takes what is so named for paths.
    name = f"_nst_{'dir' if folders else 'file'}_{zlib.crc32(words.encode()):x}"
    bash = {"name": name, "words": words, "option": "-d" if folders else "-f"}
    zsh = {"name": name, "words": words, "option": " -/" if folders else ""}
    paths = "__fish_complete_directories" if folders else "__fish_complete_path (commandline -ct)"
    fish = {"name": name, "words": words, "paths": paths}
    return {
        **{"bash": name, "zsh": name, "fish": f"({name})"},
        "preamble": {"bash": _BASH % bash, "zsh": _ZSH % zsh, "fish": _FISH % fish},
    }
