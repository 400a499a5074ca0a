"""Where a word is in a long text, across the edges of what is searched in one go; other structure is tested through
bodies.
"""

from __future__ import annotations

import pytest

from serving.api.json_bodies import brackets
from serving.api.json_bodies.brackets import find_word


@pytest.mark.parametrize("search_bytes", [1, 3, 5, 1000])
def test_a_word_is_found_wherever_it_is(monkeypatch: pytest.MonkeyPatch, search_bytes: int) -> None:
    monkeypatch.setattr(brackets, "SEARCH_BYTES", search_bytes)
    for place in range(20):
        text = b"." * place + b"true" + b"." * (20 - place) + b"true"
        assert find_word(text, b"true") == place
        assert find_word(text, b"true", place + 1) == 24
    assert find_word(b"tru" * 9, b"true") == find_word(b"", b"true") == -1
