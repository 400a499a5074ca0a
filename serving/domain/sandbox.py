"""Names the layers of the sandbox around a host: plain data for the wire, the log and people."""

from __future__ import annotations

from serving.data_model import BaseModel, ConfigDict

# in the order in which they are applied
LAYERS = (
    "environment",
    "descriptors",
    "limits",
    "no_new_privs",
    "network_namespace",
    "capabilities",
    "tasks",
    "landlock",
    "seccomp",
)
# some systems do not let an ordinary process make one; seccomp refuses sockets even without it
OPTIONAL = frozenset({"network_namespace"})


class Sandbox(BaseModel):
    """The layers around one host: `active` ones by name, and for each `missing` one the reason."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    active: tuple[str, ...] = ()
    missing: dict[str, str] = {}

    @property
    def is_whole(self) -> bool:
        """True when no layer is missing that is not optional."""
        return not self.missing.keys() - OPTIONAL and bool(self.active)

    def intersect(self, other: Sandbox) -> Sandbox:
        """Return the layers that both have, and those that either lacks."""
        active = tuple(name for name in self.active if name in other.active)
        return Sandbox(active=active, missing={**self.missing, **other.missing})

    def __str__(self) -> str:
        """The layers in one line."""
        lacking = [f"no {name} ({why})" for name, why in self.missing.items()]
        return "; ".join([", ".join(self.active) or "none", *lacking])
