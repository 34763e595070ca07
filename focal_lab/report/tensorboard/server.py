"""Starts TensorBoard in this process; the data server that it starts exits with us."""

import socket
import sys
from pathlib import Path
from typing import Any

from focal_lab.errors import UserError

_RELOAD_SECONDS = 5


def start_tensorboard(log_dir: Path, host: str, port: int | None) -> str:
    """Serve a log directory until this process exits; the URL.

    Port 0 stands for any free port, None for the first free one from 6006.

    Raises:
        UserError: the port is taken or invalid, or nothing can listen on that host.
    """
    if port is not None and not 0 <= port <= 0xFFFF:
        raise UserError(f"{port} is not 0 to 65535", key="--port")
    try:  # TensorBoard would exit with a message that does not name the option
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot listen on {host} ({reason}); use localhost or 0.0.0.0", key="--host"
        ) from error
    from tensorboard import program
    from tensorboard.data import server_ingester

    try:  # `auto` prints a note about the fast data server
        server_ingester.get_server_binary()
        fast = "true"
    except server_ingester.NoDataServerError:
        fast = "false"
    board: Any = program.TensorBoard()
    arguments = [f"--logdir={log_dir}", f"--host={host}", f"--load_fast={fast}", "--reload_multifile=true"]
    arguments += [f"--reload_interval={_RELOAD_SECONDS}", *([] if port is None else [f"--port={port}"])]
    board.configure(argv=[sys.argv[0], *arguments])
    try:
        url: str = board.launch()
    except program.TensorBoardServerException as error:
        fix = "" if port is None else " (use another --port, or none for the first free one)"
        raise UserError(f"{error.msg}{fix}", key="--port") from error
    return url
