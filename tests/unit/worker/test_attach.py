"""How a process finds its control, where not everything goes well."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from serving.domain.errors import StateUnavailable
from serving.settings import Settings, make_shared
from serving.telemetry.count_sheet import CountSheet
from serving.wire.control_socket import Admission, listen_for_processes, receive_hello, send_greeting
from serving.worker.attach import attach

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several processes need Linux")


def test_a_process_that_has_no_descriptor_left_for_what_control_hands_over_says_so(tmp_path: Path) -> None:
    """It tries again later; any other error would end that."""
    settings = make_shared(Settings(store={"path": tmp_path}, state={"path": tmp_path}))
    sheet = CountSheet.create()

    def admit() -> None:
        with listener.accept()[0] as sock:
            assert receive_hello(sock) is not None
            send_greeting(sock, Admission(0))

    with listen_for_processes(tmp_path) as listener:
        admitting = threading.Thread(target=admit)
        admitting.start()
        with pytest.raises(StateUnavailable, match="no descriptor left"):
            attach(settings, sheet.fd, threading.Event())
        admitting.join()
    sheet.close()
