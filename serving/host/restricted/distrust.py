"""The outcome of restricted loading that is no damage."""

ANY_TRUST = 'security.trust = "any" would load it, sandboxed'


class Distrusted(Exception):  # an outcome: the file may be fine, but nobody here vouches for what it does
    """The file does what no known model does. The message names it and the setting that would allow it."""


class Unlisted(Distrusted):
    """The file names a class or function that is not on the list, and that the operator does not trust."""
