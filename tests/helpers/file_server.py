"""Files over plain http on loopback: whole, cut off, longer or shorter than they are, late, or elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from loopback_server import answering

Answer = Callable[["FileHandler"], None]


class FileServer(ThreadingHTTPServer):
    """Serves `files` by path; `answers` come before them.

    Attributes:
        files: contents by path, such as `/name`.
        answers: functions that answer themselves, by path.
        requests: paths that were requested, in order.
        tokens: the header `Authorization` of each request, or None.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FileHandler)
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, Answer] = {}
        self.requests: list[str] = []
        self.tokens: list[str | None] = []

    @property
    def url(self) -> str:
        """Address of the root, without a slash."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class FileHandler(BaseHTTPRequestHandler):
    """Answers GET."""

    protocol_version = "HTTP/1.1"
    server: FileServer

    def log_message(self, *_: object) -> None:
        """Nothing on the console."""

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        self.server.tokens.append(self.headers.get("Authorization"))
        if self.path in self.server.answers:
            self.server.answers[self.path](self)
        elif self.path in self.server.files:
            self.send(200, self.server.files[self.path])
        else:
            self.send(404, b"")

    def send(self, status: int, body: bytes, **headers: str) -> None:
        """Answer with a body and its length; names of headers have underscores for hyphens."""
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def send_unbounded(self, chunk: bytes, count: int) -> None:
        """Answer without a length."""
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            for _ in range(count):
                self.wfile.write(chunk)
        except OSError:
            return


def cut(content: bytes, length: int) -> Answer:
    """Announce a whole file and close the connection after `length` bytes."""

    def answer(handler: FileHandler) -> None:
        handler.send(200, content[:length], Content_Length=str(len(content)))
        handler.close_connection = True

    return answer


def redirect(location: str) -> Answer:
    """Lead elsewhere."""
    return lambda handler: handler.send(302, b"", Location=location)


def serving_files() -> AbstractContextManager[FileServer]:
    """A server that answers while the context lasts."""
    return answering(FileServer())
