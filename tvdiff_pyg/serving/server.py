"""``tvdiff serve``: the service in a process of its own."""
from __future__ import annotations

import gc
import signal
import socket
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Collection, Dict, List, Optional, Union

import torch
import uvicorn

from tvdiff_pyg.serving.app import Limits, create_app
from tvdiff_pyg.training.run import Run

MAX_CONNECTIONS = 512
KEEP_ALIVE_S, SHUTDOWN_S = 5, 10
# So long a thread that wants to go on waits for one that does not pause. Python's 5 ms may add up: scoring gives the
# lock away at every operation of torch.
SWITCH_S = 0.0002
LOOPBACK = ('localhost', '127.0.0.1', '::1')
LOGGING: Dict[str, Any] = {
    'version': 1, 'disable_existing_loggers': False,
    'formatters': {'line': {'format': '%(asctime)s %(levelname)s %(message)s'}},
    'handlers': {'stderr': {'class': 'logging.StreamHandler', 'formatter': 'line', 'stream': 'ext://sys.stderr'}},
    'loggers': {'uvicorn': {'handlers': ['stderr'], 'level': 'INFO', 'propagate': False}},
}


class _Server(uvicorn.Server):
    """Says where it listens as soon as it does."""

    def __init__(self, config: uvicorn.Config, told: str) -> None:
        super().__init__(config)
        self.told = told

    async def startup(self, sockets: Optional[List[socket.socket]] = None) -> None:
        await super().startup(sockets)
        print(self.told, flush=True)


def serve(folder: Union[str, Path], host: str = '127.0.0.1', port: int = 8000, limits: Limits = Limits(),
          hosts: Optional[Collection[str]] = None) -> None:
    """Serve a finished run until SIGTERM or Ctrl-C; requests that are being answered are finished first.

    Args:
        folder: the run.
        host: address to listen on; others than loopback are open to the network, without a password.
        port: 0 takes a free one.
        limits: see :class:`~tvdiff_pyg.serving.Limits`.
        hosts: the host names that requests may be addressed to; on loopback its own names by default, otherwise any.

    Raises:
        RunError: the folder holds no finished run.
        OSError: the address cannot be had.
        ValueError: ``port`` out of range.
    """
    if not 0 <= port < 2 ** 16:
        raise ValueError(f"'port' must lie in 0..65535, got {port}")
    with _bound(host, port) as listener:  # before the run is read, which takes longer
        address = listener.getsockname()
        loopback = ip_address(address[0].partition('%')[0]).is_loopback
        if hosts is None and loopback:
            hosts = {*LOOPBACK, host, address[0]}
        if not loopback:
            print(f'tvdiff: warning: {host} is open to the network; there is no TLS and no password: put a proxy '
                  f'before it', file=sys.stderr)
        torch.set_num_threads(1)
        sys.setswitchinterval(SWITCH_S)
        app = create_app(Run.load(folder), limits, hosts)
        gc.collect()
        gc.freeze()  # what torch has made stays: going through it again and again would cost 0.4 s each time
        shown = f'[{address[0]}]' if ':' in address[0] else address[0]
        server = _Server(uvicorn.Config(
            app, http='h11', ws='none', loop='asyncio', lifespan='on', log_config=LOGGING,
            access_log=False, proxy_headers=False, server_header=False, limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_S, timeout_graceful_shutdown=SHUTDOWN_S),
            f'serving {folder} on http://{shown}:{address[1]} (Ctrl-C ends it)')

        def stop(number: int, frame: Any) -> None:
            server.should_exit = True

        # Uvicorn raises the signal again when it has ended; here that is a success. It may also come before its own
        # handlers are in place.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        server.run([listener])


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that holds the address, but does not listen yet."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM,
                                                                flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            if sys.platform != 'win32':  # there it would let two services share a port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise OSError(f'cannot listen on {host} port {port} ({error.strerror or error}): name another with --host or '
                      f'--port') from error
    return listener
