"""Public keys in settings: looked at when the service starts, not when the first version is refused for one."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from serving.domain.provenance import InvalidSignature, parse_public_key


def _check(text: str) -> str:
    try:
        parse_public_key(text)
    except InvalidSignature as error:
        expected = "should hold public keys as 'serving keygen' prints them: {reason}"
        raise PydanticCustomError("public_key", expected, {"reason": str(error)}) from None
    return text


PublicKeyText = Annotated[str, AfterValidator(_check)]
