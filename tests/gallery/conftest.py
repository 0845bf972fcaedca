"""Folders of small pictures."""

from __future__ import annotations

import pytest
from painter import put_picture


@pytest.fixture
def folders(place):
    """Two photographs and two paintings in folders of the current one."""
    for index, name in enumerate(("photos/cat.png", "photos/dog.jpg", "paintings/waves.png", "paintings/night.png")):
        put_picture(place / name, (60 * index, 200 - 40 * index, 90))
    return place
