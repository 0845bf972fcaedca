"""Packages of which a run needs little: that little is loaded, and the rest as soon as anything else is asked for.

Lightning asks whether what is logged is one of torchmetrics' classes. To import one of them runs the code of the
package, which imports every metric there is, and with them torchvision and, where it is installed, SciPy: up to a
quarter of the time in which this program starts, for nothing that a run needs.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from threading import RLock
from types import ModuleType
from typing import Any

# Package -> name -> the modules to import for it, in the order in which the package's code does, with its home last.
PACKAGES = {
    "torchmetrics": {
        "__version__": ("torchmetrics.__about__",),
        "Metric": ("torchmetrics.utilities", "torchmetrics.metric"),
        "MetricCollection": ("torchmetrics.utilities", "torchmetrics.collections"),
    },
}
_LOGGER = "_logger"  # by which modules of a package warn; it is called after the package
_lock = RLock()


@contextlib.contextmanager
def parts_alone() -> Iterator[None]:
    """Import only those parts of `PACKAGES` that are asked for, until they are asked for something else.

    They are the packages themselves: whoever uses them later finds all that they have.
    """
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(finder)


class _Finder(MetaPathFinder):
    """Finds the packages where Python does, and lets their code wait."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in PACKAGES:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Waiting(spec.loader)
        return spec


class _Waiting(Loader):
    """Makes a package whose code waits, as `importlib.util.LazyLoader` makes modules."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self._loader
        module.__class__ = _Package


class _Package(ModuleType):
    """A package whose code has not run."""

    def __getattr__(self, name: str) -> Any:
        if name in PACKAGES[self.__name__]:
            return _part(self, name)
        if name.startswith("__") and name != "__all__":  # Python's own, which packages do not have
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        _run(self)
        return getattr(self, name)

    def __dir__(self) -> list[str]:
        _run(self)
        return list(ModuleType.__dir__(self))  # its class has changed


class _Busy(_Package):
    """A package of which a part is being imported, or whose code runs."""

    def __getattr__(self, name: str) -> Any:
        with _lock:  # threads other than the one that does so wait
            if type(self) is _Busy:
                if name == _LOGGER:
                    return logging.getLogger(self.__name__)
                raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} before its code has run")
        return getattr(self, name)


def _part(package: ModuleType, name: str) -> Any:
    """A name of a package whose code has not run, from its home; where that needs more, the code runs."""
    with _lock:
        if type(package) is _Package:
            package.__class__ = _Busy
            before = set(sys.modules)
            try:
                *earlier, home = PACKAGES[package.__name__][name]
                for module in earlier:
                    import_module(module)
                return getattr(import_module(home), name)
            except (ImportError, AttributeError):  # a version that goes about it in another way
                for begun in set(sys.modules) - before:
                    if begun.startswith(f"{package.__name__}."):
                        del sys.modules[begun]
            finally:
                package.__class__ = _Package
            _run(package)
    return getattr(package, name)


def _run(package: Any) -> None:
    """Run the code of a package, unless somebody else has done so by now."""
    with _lock:
        waits = type(package) is _Package
        if not waits:
            return
        package.__class__ = _Busy
        try:
            package.__spec__.loader.exec_module(package)
        except BaseException:
            package.__class__ = _Package
            raise
        package.__class__ = ModuleType
