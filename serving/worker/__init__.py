"""One of several workers: a plane and HTTP, told by the supervisor what to load and what answers."""
