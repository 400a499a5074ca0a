"""What all workers have loaded, and which of them still use what: versions, and the hosts of hosted ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from serving.domain.plan import Drained, Fact, HostGone, ReplaceHost
from serving.domain.version import VersionId
from serving.hosting.host_process import HostProcess
from serving.supervisor.shared_versions import Host, SharedVersion


class LoadedVersions:
    """The versions that each worker has to load, those that workers still drain, and all hosts. Workers are indices.

    Nothing blocks. The lock of its owner guards it. `tell` gets facts, in calls of these methods.
    """

    def __init__(self, tell: Callable[[Fact], None]) -> None:
        self._tell = tell
        self._loaded: dict[VersionId, SharedVersion] = {}
        self._draining: list[SharedVersion] = []
        self._hosts: dict[int, Host] = {}

    def __iter__(self) -> Iterator[SharedVersion]:
        return iter(list(self._loaded.values()))

    # --- versions ----------------------------------------------------------------------------------------------------

    def expect(self, version: SharedVersion) -> None:
        """Take in a version that is loaded for the first time; only its host is known from now on."""
        if version.host is not None:
            self._hosts[version.host.number] = version.host

    def drop(self, version: SharedVersion) -> None:
        """Forget an expected version that could not be loaded. Its host stays the caller's."""
        if version.host is not None:
            self._hosts.pop(version.host.number, None)
        version.close()

    def keep(self, version: SharedVersion) -> None:
        """Have every worker load a version from now on."""
        self._loaded[version.key] = version

    def take_descriptors(self, version: SharedVersion, worker: int) -> list[int]:
        """Return what travels to a worker that loads a version, the caller's to close.

        There is nothing for a hosted one whose host has no channels left; control is told that it needs another host.
        """
        descriptors = version.take_descriptors(worker)
        if version.host is not None and not descriptors and not version.host.is_told:
            version.host.is_told = True
            self._tell(HostGone(version.key, version.host.number, None, has_answered=True))
        return descriptors

    def drain(self, key: VersionId, workers: Collection[int]) -> None:
        """Let go of a version; `Drained` is told when these workers have freed it."""
        version = self._loaded.pop(key)
        version.users = set(workers)
        self._draining.append(version)
        self._finish_if_drained(version)

    def note_drained(self, worker: int, fact: Drained) -> None:
        """Note that a worker has freed a version."""
        version = next(one for one in self._draining if one.key == fact.key and worker in one.users)
        version.users.discard(worker)
        version.failures += [fact.failure] if fact.failure else []
        self._finish_if_drained(version)

    def forget_worker(self, worker: int) -> None:
        """Note that a worker is gone: it uses nothing any more."""
        for version in list(self._draining):
            version.users.discard(worker)
            self._finish_if_drained(version)
        for host in list(self._hosts.values()):
            self._let_go(host, worker)

    def _finish_if_drained(self, version: SharedVersion) -> None:
        if version.users:
            return
        self._draining.remove(version)
        version.close()
        if version.host is not None:
            self.close_unless_used(version.host)
        self._tell(Drained(version.key, "; ".join(version.failures) or None))

    # --- hosts -------------------------------------------------------------------------------------------------------

    def replace_host(self, command: ReplaceHost, process: HostProcess) -> tuple[Host, Host] | str:
        """Let another host answer for a version; returns the one before and this one, or why it cannot be."""
        version = self._loaded.get(command.key)
        if version is None or version.host is None:
            return "the version is not loaded any more"
        if version.host.number > command.host:
            return "the version has been loaded again since, with another host"
        before, version.host = version.host, Host(command.host, process)
        self._hosts[command.host] = version.host
        return before, version.host

    def note_host_left(self, worker: int, number: int) -> None:
        """Note that a worker uses a host no more."""
        host = self._hosts.get(number)
        if host is not None:
            self._let_go(host, worker)

    def note_host_gone(self, fact: HostGone) -> None:
        """Tell that a host is gone, once, whichever worker says it first; kill one that has broken the protocol."""
        host = self._hosts.get(fact.host)
        if host is None:
            return
        if fact.violation is not None:
            host.process.kill()
        if not host.is_told:
            host.is_told = True
            self._tell(fact)

    def close_unless_used(self, host: Host) -> None:
        """End a host that no other worker will use, now or when the last worker lets it go."""
        host.is_replaced = True
        if not host.users:
            host.process.close()
            self._hosts.pop(host.number, None)

    def _let_go(self, host: Host, worker: int) -> None:
        host.users.discard(worker)
        if host.is_replaced:
            self.close_unless_used(host)
