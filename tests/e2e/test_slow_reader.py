"""A client that asks and never reads: its answer is not kept for ever."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import psutil
from sklearn.linear_model import LinearRegression

from tests.e2e.harness import serving, until

ROWS, WIDTH = 100_000, 8  # far more than the system keeps for a socket


def test_a_client_that_never_reads_its_answer_is_let_go(tmp_path: Path) -> None:
    with serving(tmp_path, SERVING_SERVER__IDLE_SECONDS="0.5") as server:
        server.drop("m", 1, LinearRegression().fit([[0.0], [1.0]], [[0.1] * WIDTH, [0.7] * WIDTH]))
        server.wait_active("m", 1)
        assert server.process is not None
        process = psutil.Process(server.process.pid)
        host, _, port = server.url.removeprefix("http://").rpartition(":")
        body = json.dumps({"instances": [[0.123]] * ROWS}).encode()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((host, int(port)))
            own = client.getsockname()[1]
            head = f"POST /models/m/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            client.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)

            def is_connected() -> bool:
                return any(one.raddr and one.raddr.port == own for one in process.net_connections("tcp"))

            assert client.recv(1, socket.MSG_PEEK) == b"H", "the answer began"
            until(lambda: not is_connected(), "the end of the connection")
        assert server.predict("m", [[1.0]]).status_code == 200
