"""Everything that runs in a host process or talks to one."""
