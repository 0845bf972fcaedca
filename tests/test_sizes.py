"""No class and no function of the package is longer than can be read at a sitting."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import nst_lightning

PACKAGE = Path(nst_lightning.__file__).parent
CLASS, FUNCTION = 200, 50  # lines, from the first decorator to the last statement


def long_ones(folder: Path) -> Iterator[str]:
    """Name the classes and functions below a folder that are longer than they may be."""
    for path in sorted(folder.rglob("*.py")):
        pending: list[tuple[str, ast.AST]] = [("", ast.parse(path.read_text(encoding="utf-8")))]
        while pending:
            inside, node = pending.pop()
            name = inside
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                name = f"{inside}.{node.name}".lstrip(".")
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                if (node.end_lineno or 0) - first + 1 > (CLASS if isinstance(node, ast.ClassDef) else FUNCTION):
                    yield f"{path.relative_to(folder).as_posix()} {name}"
            pending += [(name, child) for child in ast.iter_child_nodes(node)]


def test_nothing_is_too_long():
    assert set(long_ones(PACKAGE)) == set()


def test_what_is_too_long_is_found(tmp_path):
    body = "        pass\n" * 48
    classes = f"class Short:\n    def short(self):\n{body}\n\nclass Long:\n    @staticmethod\n    def long():\n{body}\n"
    (tmp_path / "one.py").write_text(classes + "    x = 1\n" * 150, encoding="utf-8")
    assert set(long_ones(tmp_path)) == {"one.py Long"}
    (tmp_path / "one.py").write_text(classes.replace("Long", "Other").replace(body, body + "        pass\n"), "utf-8")
    assert set(long_ones(tmp_path)) == {"one.py Other.long"}
