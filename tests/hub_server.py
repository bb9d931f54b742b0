"""A local server that answers requests for files as the Hugging Face Hub does."""

from __future__ import annotations

import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import unquote

Files = dict[str, bytes]


class Request(NamedTuple):
    method: str
    path: str


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    content: bytes = b""


class HubServer:
    """Serves repositories on 127.0.0.1 until it is stopped.

    Parameters
    ----------
    repositories : dict
        Name -> revision -> file name -> content. A commit's hash follows from its content.
    gated : str, optional
        Name of a repository whose terms the caller has not accepted.
    """

    def __init__(
        self, repositories: dict[str, dict[str, Files]], *, gated: str | None = None
    ) -> None:
        self.repositories = repositories
        self.gated = gated
        self.requests: list[Request] = []
        # as on the real Hub, large files lie on a host of their own, reached by a redirection
        self._hub, self._storage = _serve(self._answer), _serve(self._answer_storage)
        self.url = _url(self._hub)

    def __enter__(self) -> HubServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        for server in (self._hub, self._storage):
            server.shutdown()
            server.server_close()

    def _answer(self, request: Request) -> Answer:
        self.requests.append(request)
        parts = request.path.removeprefix("/").split("/", 4)
        if len(parts) < 5 or parts[2] != "resolve":
            return Answer(404, {})
        repository, revision, file = "/".join(parts[:2]), parts[3], parts[4]
        if repository == self.gated:
            return Answer(403, {"X-Error-Code": "GatedRepo"})
        if repository not in self.repositories:
            return Answer(401, {"X-Error-Code": "RepoNotFound"})
        revisions = self.repositories[repository]
        commits = {commit_of(files): files for files in revisions.values()}
        files = revisions.get(revision, commits.get(revision))
        if files is None:
            return Answer(404, {"X-Error-Code": "RevisionNotFound"})
        headers = {"X-Repo-Commit": commit_of(files)}
        if file not in files:
            return Answer(404, headers | {"X-Error-Code": "EntryNotFound"})
        content = files[file]
        if not file.endswith(".safetensors"):
            return Answer(200, headers | {"ETag": f'"{_sha1(content)}"'}, content)
        linked = {
            "X-Linked-ETag": f'"{_sha1(content)}"',
            "X-Linked-Size": str(len(content)),
            "Location": f"{_url(self._storage)}/{_sha1(content)}",
        }
        return Answer(302, headers | linked)

    def _answer_storage(self, request: Request) -> Answer:
        self.requests.append(request)
        for revisions in self.repositories.values():
            for files in revisions.values():
                for content in files.values():
                    if request.path == f"/{_sha1(content)}":
                        return Answer(200, {}, content)
        return Answer(404, {})


def commit_of(files: Files) -> str:
    return _sha1(b"".join(name.encode() + files[name] for name in sorted(files)))


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _url(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def _serve(answer: Any) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reply = answer(Request(self.command, unquote(self.path)))
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(reply.content)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server
