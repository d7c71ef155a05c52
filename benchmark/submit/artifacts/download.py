"""Requests for artifacts: https only, a bounded number of bytes, redirects and seconds, and no address inside a network.

A submission chooses the addresses, so none of them may lead to another scheme, or to a machine that only this one reaches.
The user's own mirrors may be inside a network.
"""

from __future__ import annotations

import http.client
import os
import ssl
import time
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from benchmark.files import sanitize
from benchmark.submit.artifacts.cache import UnavailableError
from benchmark.submit.artifacts.locations import WebAddress, accepts_loopback_http, check_web_url, is_loopback

TIMEOUT_SECONDS = 30.0
"""Longest wait for a connection, and for the next bytes."""
START_SECONDS, MIN_BYTES_PER_SECOND = 60.0, 50_000
"""A download may take `START_SECONDS`, and as long as its bytes take at this rate."""
READ_BYTES = 1 << 16
ATTEMPTS = 2
"""Requests per address: a connection that breaks is tried again, a refusal is not."""
RETRIED_STATUSES = {408, 425, 429, 500, 502, 503, 504}
TOKEN_VARIABLE, TOKEN_HEADER = "HF_TOKEN", "Authorization"


class BrokenTransferError(UnavailableError):
    """The transfer ended early; another request may succeed."""


class UnreachableError(UnavailableError):
    """No connection could be made to the host."""


class _Redirects(HTTPRedirectHandler):
    """Follows redirects to https only; plain http on loopback may lead to the same."""

    max_redirections = 5

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        """See `HTTPRedirectHandler`."""
        try:
            check_web_url(newurl, accepts_http=req.full_url.startswith("http://"))
        except ValueError as error:
            raise UnavailableError(f"redirected to {sanitize(newurl)}, which is not followed") from error
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and req.has_header(TOKEN_HEADER) and _origin(newurl) == _origin(req.full_url):
            request.add_unredirected_header(TOKEN_HEADER, req.get_header(TOKEN_HEADER, ""))
        return request


def _origin(url: str) -> tuple[str, str]:
    """Scheme, host and port of a URL."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


class _PublicConnection(http.client.HTTPSConnection):
    """A connection that is closed before anything is requested if it leads to an address inside a network."""

    def connect(self) -> None:
        """See `HTTPSConnection`."""
        super().connect()
        if getattr(self, "_tunnel_host", None) is None:  # a proxy is the user's own
            peer = self.sock.getpeername()[0].partition("%")[0]
            address = ip_address(peer)
            if not (getattr(address, "ipv4_mapped", None) or address).is_global:
                self.close()
                raise UnavailableError(f"{peer} is no public address")


class _PublicHandler(HTTPSHandler):
    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self.context = context

    def https_open(self, req: Request) -> http.client.HTTPResponse:
        """See `HTTPSHandler`."""
        return self.do_open(_PublicConnection, req, context=self.context)


def read_web(address: WebAddress, size: int, is_listed: bool, latest: float = float("inf")) -> Iterator[bytes]:
    """Yield the bytes of an address, at most `size` and one chunk more.

    Args:
        address: what is requested.
        size: expected number of bytes.
        is_listed: whether a submission chose the address, rather than the user.
        latest: when it must have ended, as `time.monotonic` counts.

    Raises:
        UnreachableError: no connection could be made.
        BrokenTransferError: the connection ended early.
        UnavailableError: the answer is another.
    """
    deadline = min(latest, time.monotonic() + START_SECONDS + size / MIN_BYTES_PER_SECOND)
    request = Request(address.url, headers={"Accept-Encoding": "identity", "User-Agent": "karel-bench"})
    token = os.environ.get(TOKEN_VARIABLE)
    if address.is_hub and token:
        # Not sent to where a redirect leads, unless that is on the same host.
        request.add_unredirected_header(TOKEN_HEADER, f"Bearer {token}")
    try:
        # Where the hub leads is not a submission's choice.
        with _opener(address.url, is_listed and not address.is_hub).open(request, timeout=TIMEOUT_SECONDS) as response:
            length = response.headers.get("Content-Length", "")
            if length.isdecimal() and int(length) != size:
                raise UnavailableError(f"{int(length):,} bytes, not {size:,}")
            received = 0
            while received <= size and (chunk := response.read1(READ_BYTES)):
                if time.monotonic() > deadline:
                    raise UnavailableError("slower than a download may be")
                received += len(chunk)
                yield chunk
            if received < size:
                raise BrokenTransferError(f"ended after {received:,} of {size:,} bytes")
    except HTTPError as error:
        kind = BrokenTransferError if error.code in RETRIED_STATUSES else UnavailableError
        error.close()
        raise kind(f"status {error.code}") from error
    except URLError as error:
        reason = error.reason
        if isinstance(reason, UnavailableError):
            raise reason from error
        raise UnreachableError(f"no connection ({sanitize(str(reason))[1:-1]})") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise BrokenTransferError(f"{type(error).__name__} {sanitize(str(error))}") from error


def _opener(url: str, is_listed: bool) -> OpenerDirector:
    """An opener of https, and of plain http on loopback, without the handlers of files, data and ftp that urllib adds."""
    opener = OpenerDirector()
    context = ssl.create_default_context()
    handlers: list[Any] = [_Redirects(), HTTPDefaultErrorHandler(), HTTPErrorProcessor()]
    is_local = is_loopback(url) and (url.startswith("http://") or accepts_loopback_http())
    handlers += [HTTPHandler(), ProxyHandler({})] if url.startswith("http://") else [ProxyHandler()]
    handlers.append(_PublicHandler(context) if is_listed and not is_local else HTTPSHandler(context=context))
    for handler in handlers:
        opener.add_handler(handler)
    return opener
