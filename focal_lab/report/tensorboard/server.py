"""TensorBoard in this process: a thread serves, a child, which ends with us, reads event files."""

import socket
import sys
from pathlib import Path
from typing import Any

from focal_lab.errors import UserError

# Seconds between two looks at the event files.
RELOAD = 5
_HIGHEST_PORT = 0xFFFF


def start_tensorboard(folder: Path, host: str, port: int | None) -> str:
    """Serve a folder of event files until this process ends; the address for a browser.

    Args:
        folder: with a folder for every run.
        host: name or address to listen on.
        port: 0 for any that is free, None for the first free one from 6006.

    Raises:
        UserError: the port is taken, or is none; nothing can listen on that host.
    """
    _check_host(host)
    if port is not None and not 0 <= port <= _HIGHEST_PORT:
        raise UserError(f"{port} is not 0 to {_HIGHEST_PORT}", key="--port")
    try:
        from tensorboard import program
    except ImportError as error:
        raise UserError(f"TensorBoard cannot be imported ({error}); pip install tensorboard") from error
    board: Any = program.TensorBoard()
    arguments = [f"--logdir={folder}", f"--host={host}", f"--reload_interval={RELOAD}"]
    arguments += ["--reload_multifile=true", f"--load_fast={_has_fast_reader()}"]
    board.configure(argv=[sys.argv[0], *arguments, *([] if port is None else [f"--port={port}"])])
    try:
        address: str = board.launch()
    except program.TensorBoardServerException as error:
        way_out = "" if port is None else " (use another --port, or none: the first that is free)"
        raise UserError(f"{error.msg}{way_out}", key="--port") from error
    return address


def _check_host(host: str) -> None:
    """TensorBoard's web server would end the process, with a line that does not say of what it speaks."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        told = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot listen on {host} ({told}); use localhost or 0.0.0.0", key="--host"
        ) from error


def _has_fast_reader() -> str:
    """Whether the fast reader is installed; asked for, it does not introduce itself on the terminal."""
    from tensorboard.data import server_ingester

    try:
        server_ingester.get_server_binary()
    except server_ingester.NoDataServerError:
        return "false"
    return "true"
