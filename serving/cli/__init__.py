"""The command line. Its entry point imports the commands only when it is called, so that Ctrl-C works meanwhile."""

from __future__ import annotations

import gc
import signal

__all__ = ["main"]


def main() -> int:
    """Run one command and return its exit status. Main thread only.

    While the commands are imported, which takes most of a second, Ctrl-C ends the process as it ends a program without
    a handler: there is nothing to clean up yet, and Python would print a traceback.
    """
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_default:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()  # imports leave almost no garbage, and to look for it takes a tenth of the start
    from serving.cli.program import run  # noqa: PLC0415  (see above)

    gc.enable()
    if is_default:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()
