"""Fixtures that several files of end-to-end tests share."""

from __future__ import annotations

import pytest

from serving.offline.keys import SigningKey, create_key, load_key


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    """A key to sign versions with; a server trusts it when its settings name it."""
    path = tmp_path_factory.mktemp("keys") / "key"
    create_key(path)
    return load_key(path)
