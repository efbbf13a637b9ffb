"""GitHub's and GitLab's REST APIs on loopback, as far as a comment needs them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from loopback import Handler

PAGE = 3
"""What a page has at most, whatever is asked for."""


@dataclass
class FakeHost:
    """State of one repository with one pull request, 7; ``log`` has each request.

    ``rival`` is a comment that another run of the same job makes just before this one does;
    ``is_merged`` says whether that run has deleted this one's before it is looked for.
    ``before`` are answers that come instead of the real ones, each once: status and headers; their
    body has ``before_text`` and ``before_errors``.
    """

    kind: str
    token: str = "s3cr3t-t0ken"
    may_write: bool = True
    is_person: bool = False
    comments: list[dict[str, Any]] = field(default_factory=list)
    before: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    before_text: str = "not now"
    before_errors: list[Any] = field(default_factory=list)
    rival: str = ""
    is_merged: bool = False
    log: list[str] = field(default_factory=list)

    def add(self, body: str, by: str = "me") -> None:
        """A comment that is there already."""
        self.comments.append(self._comment(body, by))

    def _comment(self, body: str, by: str) -> dict[str, Any]:
        number = 100 + len(self.comments)
        if self.kind == "gitlab":
            author = {"id": {"me": 1}.get(by, 2), "username": by}
            return {"id": number, "body": body, "author": author, "system": by == "system"}
        user = {"login": by, "type": "User"}
        if by == "me":
            user = {"login": "me" if self.is_person else "github-actions[bot]"}
            user["type"] = "User" if self.is_person else "Bot"
        return {"id": number, "body": body, "user": user, "html_url": f"https://h/pull/7#{number}"}

    def respond(self, request: Handler) -> None:
        """Answer as the host would."""
        path = urlsplit(request.path).path
        self.log.append(f"{request.command} {path}")
        if self.before:
            status, headers = self.before.pop(0)
            answer = {"message": self.before_text, "errors": self.before_errors}
            request.give(status, json.dumps(answer).encode(), **headers)
        elif not self._is_known(request):
            self._say(request, 401, {"message": "Bad credentials"})
        else:
            self._route(request, path, json.loads(request.body or b"null"))

    def _is_known(self, request: Handler) -> bool:
        if self.kind == "gitlab":
            return bool(request.headers.get("PRIVATE-TOKEN") == self.token)
        return bool(request.headers.get("Authorization") == f"Bearer {self.token}")

    def _route(self, request: Handler, path: str, body: Any) -> None:
        every, one = {
            "github": (r"/repos/a/b/issues/7/comments", r"/repos/a/b/issues/comments/(\d+)"),
            "gitlab": (r"/projects/12/merge_requests/7/notes", r"/projects/12/.*/7/notes/(\d+)"),
        }[self.kind]
        change = {"github": "PATCH", "gitlab": "PUT"}[self.kind]
        match = re.fullmatch(one, path)
        if path == "/user":
            self._user(request)
        elif path == "/repos/a/b/pulls":
            head = parse_qs(urlsplit(request.path).query)["head"] == ["forker:branch"]
            pulls = [{"number": 3, "head": {"sha": "old"}}, {"number": 7, "head": {"sha": "new"}}]
            self._say(request, 200, pulls if head else [])
        elif path == re.sub(r"\\", "", every) and request.command == "GET":
            self._page(request)
        elif not self.may_write:
            self._say(request, 403, {"message": "Resource not accessible by integration"})
        elif path == every and request.command == "POST":
            for text in filter(None, (self.rival, body["body"])):
                self.add(text)
            self.rival = ""
            self._say(request, 201, self.comments[-1])
            if self.is_merged:
                self.comments.pop()
        elif match and request.command == "DELETE":
            self.comments = [c for c in self.comments if c["id"] != int(match[1])]
            request.give(204, b"")
        elif match and request.command == change:
            (found,) = (c for c in self.comments if c["id"] == int(match[1]))
            found["body"] = body["body"]
            self._say(request, 200, found)
        else:
            self._say(request, 404, {"message": "Not Found"})

    def _user(self, request: Handler) -> None:
        if self.kind == "gitlab":
            self._say(request, 200, {"id": 1})
        elif self.is_person:
            self._say(request, 200, {"login": "me"})
        else:
            self._say(request, 403, {"message": "Resource not accessible by integration"})

    def _page(self, request: Handler) -> None:
        query = parse_qs(urlsplit(request.path).query)
        assert int(query["per_page"][0]) == 100
        page = int(query.get("page", ["1"])[0])
        found = self.comments[(page - 1) * PAGE : page * PAGE]
        headers = {}
        if page * PAGE < len(self.comments):
            path = urlsplit(request.path).path
            url = f"http://{request.headers['Host']}{path}?per_page=100&page={page + 1}"
            headers["Link"] = f'<{url}>; rel="next", <{url}>; rel="last"'
        self._say(request, 200, found, headers)

    def _say(
        self, request: Handler, status: int, content: object, headers: dict[str, str] | None = None
    ) -> None:
        request.give(status, json.dumps(content).encode(), **(headers or {}))
