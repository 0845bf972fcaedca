"""A studio in a folder of its own, and a client of it."""

from __future__ import annotations

import pytest
from serving import studio_client


@pytest.fixture
def client(tmp_path):
    """A client of a studio that needs no token."""
    with studio_client(tmp_path / "studio") as found:
        yield found


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A client of a studio that the tests of a file share."""
    with studio_client(tmp_path_factory.mktemp("shared") / "studio") as found:
        yield found
