"""The one place from which code that also runs in hosts takes its JSON: orjson's.

In another environment than the server's, orjson may be absent. So `enter` puts
`serving.host.substitutes.plain_json` in the place of this module before anything imports it.
"""

from __future__ import annotations

from orjson import OPT_NON_STR_KEYS, JSONDecodeError, dumps, loads

__all__ = ["OPT_NON_STR_KEYS", "JSONDecodeError", "dumps", "loads"]
