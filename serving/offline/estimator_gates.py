"""Publishes the estimator of this process through the gates, as `publish_estimator` describes it.

Needs the packages of the server, unlike `publish_estimator`, which imports this module only where they are.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import gettempdir

from serving.domain.artifact import StagedFile
from serving.domain.errors import HostDied, PublishRefused
from serving.domain.version import Format
from serving.host.pickled_names import explain_missing_modules
from serving.offline.bare_publishing import publish_unchecked
from serving.offline.gated_publishing import publish_gated, refuse_unsigned
from serving.offline.keys import SigningKey
from serving.offline.offline_evaluator import NoHost, open_evaluator
from serving.settings import Settings, load_settings
from serving.store.durable import CHUNK_BYTES, read_chunks, sha256_of
from serving.store.publishing import Publication, Published

_HERE = "set os.environ['PYTHONPATH'] to it before publishing"


class EstimatorGates:
    """The gates with the settings of the working directory; `store` goes over the setting ``store.path``.

    `key` signs the version. Raises SettingsError.
    """

    def __init__(self, store: Path | str | None, key: SigningKey | None) -> None:
        self._settings: Settings = load_settings({"store.path": store})
        self._key = key

    @property
    def root(self) -> Path:
        """The directory of the store."""
        return self._settings.store.path

    def refuse_unsigned(self) -> None:
        """Raise PublishRefused when only signed versions are served and this one would not be signed."""
        refuse_unsigned(self._settings, self._key)

    def publish(
        self, publication: Publication, own_modules: tuple[str, ...], *, check: bool
    ) -> tuple[Published, str | None]:
        """Publish, through the gates if they are wanted and can run. Also returns a warning for the user, or None."""
        unchecked = None
        if check:
            try:
                return self._publish_checked(publication), None
            except PublishRefused as error:
                absent = explain_missing_modules(own_modules) if error.report is not None else None
                if absent is None:
                    raise
                raise PublishRefused(f"{error}; {absent}; for the gates here, {_HERE}", None, error.report) from None
            except NoHost as error:
                unchecked = (
                    f"published without the gates, which cannot run here ({error}); those of a server will decide"
                )
        published = publish_unchecked(self.root, publication)
        return published, "; ".join(filter(None, (unchecked, explain_missing_modules(own_modules)))) or None

    def _publish_checked(self, publication: Publication) -> Published:
        """Write the estimator into a temporary directory and publish that file if no gate refuses."""
        assert not isinstance(publication.artefact, Path)
        try:
            with open_evaluator(self._settings) as evaluator:
                path = evaluator.directory / publication.artefact_name
                with path.open("x+b") as file:
                    publication.artefact(file)
                    file.flush()
                    sha256 = sha256_of(read_chunks(file.fileno(), memoryview(bytearray(CHUNK_BYTES))))
                main = StagedFile(path.name, sha256, path.stat().st_size, path)
                return publish_gated(evaluator, main, Format.JOBLIB, publication, self._settings, self._key)
        except HostDied as error:
            raise PublishRefused(f"the gates did not finish: {error}; try again, or with check=False") from None
        except OSError as error:
            reason = f"the gates need a directory in '{gettempdir()}': {error.strerror}"
            raise PublishRefused(f"{reason}; TMPDIR names another, check=False needs none") from error
