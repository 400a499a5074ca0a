"""The operators' token, from the setting or from its file."""

from __future__ import annotations

from serving.settings.groups import SecuritySettings
from serving.settings.problems import SettingsError

_MAX_BYTES = 4096


def read_admin_token(security: SecuritySettings) -> str | None:
    """Return the operators' token, None when there is none: operator calls are closed then. Blocks on its file.

    Raises SettingsError when setting and file are both given, when the file cannot be read, and for a token that no
    HTTP header could carry. The token itself is never part of a message.
    """
    setting, file = security.admin_token, security.admin_token_file
    if setting is not None and file is not None:
        raise SettingsError("security: admin_token and admin_token_file are both set; keep one of them")
    if setting is not None:
        return _checked(setting.get_secret_value(), "security.admin_token")
    if file is None:
        return None
    try:
        with file.open("rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"security.admin_token_file: cannot read {file}: {error.strerror}") from None
    if len(raw) > _MAX_BYTES:
        raise SettingsError(f"security.admin_token_file: {file} is no token: longer than {_MAX_BYTES} bytes")
    return _checked(raw.decode("utf-8", "replace"), f"security.admin_token_file: {file}")


def _checked(text: str, where: str) -> str:
    token = text.strip()
    if not token:
        raise SettingsError(f"{where}: is empty; put a token there or remove the setting")
    if not all("!" <= character <= "~" for character in token):
        raise SettingsError(f"{where}: a token is one line of ASCII without spaces")
    return token
