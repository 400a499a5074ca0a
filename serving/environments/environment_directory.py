"""The directory of the environments that ``serving environment create`` makes, one directory for each.

``NAME/environment.json`` is written last. Without it NAME is half-made, and nothing ever uses it. ``.NAME.unfinished``
is there while NAME is being made or removed, and stays when that is killed: what has neither of the two was not made by
that command, and is never emptied or removed by it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from serving.domain.environment_names import why_not_an_environment_name
from serving.domain.errors import EnvironmentRefused

RECORD_NAME = "environment.json"
LOCK_NAME = "requirements.lock"
PYTHON_PATH = Path("bin") / "python"
_INSTALLERS = frozenset({"pip", "setuptools", "wheel"})  # of the environment itself: no lock of what was asked for


class EnvironmentRecord(BaseModel):
    """``environment.json``: how an environment was made, and every distribution that was installed then."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = 1
    name: str
    created_at: datetime
    python_version: str
    installer: str
    requirements: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    libraries: dict[str, str]


class EnvironmentDirectory:
    """All environments that were made below one directory. Holds no state; any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def list_names(self) -> list[str]:
        """Return the names of all directories, half-made ones included, sorted; none without the directory."""
        try:
            with os.scandir(self.path) as entries:
                names = [each.name for each in entries if each.is_dir()]
        except OSError:
            return []
        return sorted(name for name in names if why_not_an_environment_name(name) is None)

    def find_python(self, name: str) -> Path:
        """Return the path of its interpreter, whether it exists or not."""
        return self.path / name / PYTHON_PATH

    def is_complete(self, name: str) -> bool:
        """Say whether it was made to its end."""
        return (self.path / name / RECORD_NAME).is_file()

    def read_record(self, name: str) -> EnvironmentRecord:
        """Return how it was made; raises EnvironmentRefused when it is half-made or its record cannot be read."""
        path = self.path / name / RECORD_NAME
        try:
            return EnvironmentRecord.model_validate_json(path.read_bytes())
        except OSError as error:
            raise EnvironmentRefused(f"'{path}' cannot be read: {error.strerror}") from None
        except ValidationError:
            raise EnvironmentRefused(f"'{path}' is not what 'serving environment create' writes") from None

    def write_record(self, record: EnvironmentRecord) -> None:
        """Complete an environment: from now on it is used. Atomic and durable; raises OSError."""
        directory = self.path / record.name
        lines = [f"{name}=={version}" for name, version in sorted(record.libraries.items()) if name not in _INSTALLERS]
        _write_durably(directory / LOCK_NAME, "".join(f"{line}\n" for line in lines))
        document = json.dumps(record.model_dump(mode="json"), indent=2)
        _write_durably(directory / RECORD_NAME, f"{document}\n")
        self._find_mark(record.name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[int]:
        """Hold an environment's directory, made if it does not exist; yields a descriptor that holds it, too.

        Raises EnvironmentRefused while another process makes or removes it, or when there can be no such directory.
        """
        path = self.path / name
        while True:
            try:
                path.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:  # removed between the two
                continue
            except OSError as error:
                if path.is_symlink():
                    raise EnvironmentRefused(f"'{path}' is a link: what it leads to is not touched") from None
                raise EnvironmentRefused(f"'{path}' cannot be made: {error.strerror}; see environments.path") from None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_still(path, descriptor):
                    yield descriptor
                    return
            except BlockingIOError:
                raise EnvironmentRefused(f"the environment '{name}' is being made or removed right now") from None
            finally:
                os.close(descriptor)

    def is_busy(self, name: str) -> bool:
        """Say whether a process makes or removes it right now."""
        try:
            descriptor = os.open(self.path / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def is_foreign(self, name: str) -> bool:
        """Say whether there are files in it that 'create' has not put there."""
        if self.is_complete(name) or self._find_mark(name).exists():
            return False
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            return any((self.path / name).iterdir())
        return False

    def require_own(self, name: str) -> None:
        """Raise EnvironmentRefused for one with files of others, which must not be deleted."""
        if self.is_foreign(name):
            raise EnvironmentRefused(
                f"'{self.path / name}' has files that 'serving environment create' has not made, and keeps them: "
                "move them away, or choose another name"
            )

    def remove(self, name: str) -> None:
        """Remove it, as its first step from the environments that are used. The caller holds its lock. Blocks."""
        self._find_mark(name).touch()
        (self.path / name / RECORD_NAME).unlink(missing_ok=True)
        shutil.rmtree(self.path / name)
        self._find_mark(name).unlink(missing_ok=True)

    def begin(self, name: str) -> None:
        """Let it count as half-made, and empty it of what was left. The caller holds its lock."""
        self._find_mark(name).touch()
        for each in (self.path / name).iterdir():
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each)
            else:
                each.unlink()

    def _find_mark(self, name: str) -> Path:
        return self.path / f".{name}.unfinished"

    def count_bytes(self, name: str) -> int:
        """Return how much disk space it takes; each file counts once, whatever its number of names. Blocks."""
        seen: dict[tuple[int, int], int] = {}
        for stat in _walk(self.path / name):
            seen[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
        return sum(seen.values())


def _is_still(path: Path, descriptor: int) -> bool:
    """Say whether this is the directory of that name: another may have been made since it was opened."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _write_durably(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _walk(directory: Path) -> Iterator[os.stat_result]:
    for root, _, names in os.walk(directory):
        for path in (Path(root), *(Path(root) / name for name in names)):
            with contextlib.suppress(OSError):  # removed meanwhile
                yield path.lstat()
