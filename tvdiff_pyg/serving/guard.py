"""What every request passes: its host, its size and its time are checked, and it is counted."""
from __future__ import annotations

import asyncio
import time
from typing import Any, Awaitable, Callable, Collection, Dict, Mapping, MutableMapping, Optional
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

# After a refusal the client may still be writing, and would lose the answer if we hung up: so much more is read first.
DISCARDED = 8 * 2 ** 20
MESSAGE_LENGTH = 300
METHODS = ('GET', 'POST')
SECONDS = (.001, .0025, .005, .01, .02, .05, .1, .25, 1., 5.)


def problem(status: int, message: str, headers: Optional[Mapping[str, str]] = None) -> JSONResponse:
    """Return an error as JSON, in one line."""
    text = ' '.join(message.split())
    cut = text if len(text) <= MESSAGE_LENGTH else text[:MESSAGE_LENGTH] + ' ...'
    return JSONResponse({'error': cut}, status, headers)


class Metrics:
    """The figures of one service, apart from any other of this process.

    Args:
        paths: the paths that are told apart; all others are counted as one, so that no client makes new series.
    """

    def __init__(self, paths: Collection[str]) -> None:
        self.paths = frozenset(paths)
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter('tvdiff_requests', 'Answers by path, method and status.', ('path', 'method', 'status'),
                                registry=self.registry)
        self.seconds = Histogram('tvdiff_request_seconds', 'From the headers to the end of the answer.', ('path',),
                                 buckets=SECONDS, registry=self.registry)

    def count(self, path: str, method: str, status: int, seconds: float) -> None:
        """Count an answer."""
        path, method = path if path in self.paths else 'other', method if method in METHODS else 'other'
        self.requests.labels(path, method, str(status)).inc()
        self.seconds.labels(path).observe(seconds)


class Guard:
    """ASGI middleware that reads a body, up to a limit of bytes and seconds, before the application sees the request.

    Args:
        app: the application.
        metrics: what it counts into.
        max_body: bytes; counted as they come, whatever the headers say.
        body_seconds: for the whole body.
        hosts: the names, without a port, that requests may be addressed to; any where ``None``. A service on
            loopback is otherwise open to every web page, by a name that its owner points to 127.0.0.1.
        policies: the ``Content-Security-Policy`` of each page; others may load nothing.
    """

    def __init__(self, app: Application, metrics: Metrics, max_body: int, body_seconds: float,
                 hosts: Optional[Collection[str]], policies: Dict[str, str]) -> None:
        self.app, self.metrics, self.max_body, self.body_seconds = app, metrics, max_body, body_seconds
        self.hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        self.policies = policies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        started, status, path = time.perf_counter(), 500, scope['path']
        policy = self.policies.get(path, "default-src 'none'; frame-ancestors 'none'")
        headers = [
            (b'content-security-policy', policy.encode()),
            (b'x-content-type-options', b'nosniff'), (b'referrer-policy', b'no-referrer'),
            (b'cache-control', b'no-store')]

        async def count_and_send(message: Message) -> None:
            nonlocal status
            if message['type'] == 'http.response.start':
                status = message['status']
                message['headers'] = [*message.get('headers', ()), *headers]
            await send(message)

        try:
            answer: Application = self.app
            if not self._addressed(scope):
                answer = problem(421, 'this service does not answer to that host name: see --allowed-hosts')
            else:
                body = b''
                try:
                    async with asyncio.timeout(self.body_seconds):
                        received = await self._body(receive)
                except TimeoutError:
                    answer = problem(408, f'the body did not come within {self.body_seconds:g} s',
                                     {'connection': 'close'})
                except ConnectionResetError:  # nobody is left to be answered
                    status = 499
                    return
                else:
                    if received is None:
                        answer = problem(413, f'the body is larger than {self.max_body} bytes',
                                         {'connection': 'close'})
                    else:
                        body = received
                receive = _replay(body, receive)
            await answer(scope, receive, count_and_send)
        finally:
            self.metrics.count(path, scope['method'], status, time.perf_counter() - started)

    def _addressed(self, scope: Scope) -> bool:
        if self.hosts is None:
            return True
        named = [value for name, value in scope['headers'] if name == b'host']
        try:
            return len(named) == 1 and urlsplit('//' + named[0].decode('latin-1')).hostname in self.hosts
        except ValueError:
            return False

    async def _body(self, receive: Receive) -> Optional[bytes]:
        """Return the body, or ``None`` where it is too large."""
        parts, size, more = [], 0, True
        while more and size <= self.max_body + DISCARDED:
            message = await receive()
            if message['type'] == 'http.disconnect':
                raise ConnectionResetError
            part = message.get('body', b'')
            size += len(part)
            more = message.get('more_body', False)
            if size <= self.max_body:
                parts.append(part)
        return b''.join(parts) if size <= self.max_body else None


def _replay(body: bytes, receive: Receive) -> Receive:
    messages = [{'type': 'http.request', 'body': body, 'more_body': False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again
