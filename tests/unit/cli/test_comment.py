"""The comment on a pull request, against servers that speak GitHub's and GitLab's endpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hosts import FakeHost
from loopback import listening

from pytest_armory.cli import rest
from pytest_armory.cli.comment import Posted, post_comment

Post = Callable[..., Posted]
MARKER = {
    "github": "<!-- pytest-armory report evals/nightly-job -->",
    "gitlab": "<!-- pytest-armory report evals-1-2 -->",
}


@pytest.fixture(params=["github", "gitlab"])
def host(request: pytest.FixtureRequest) -> FakeHost:
    """One of the two."""
    return FakeHost(request.param)


@pytest.fixture
def github() -> FakeHost:
    """GitHub."""
    return FakeHost("github")


@pytest.fixture
def url_of() -> Iterator[Callable[[FakeHost], str]]:
    """Serve a host until the test's end."""
    with ExitStack() as stack:
        yield lambda host: stack.enter_context(listening(host.respond))


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were waited for, in no time."""
    seconds: list[float] = []
    monkeypatch.setattr(rest, "sleep", seconds.append)
    return seconds


@pytest.fixture
def post(url_of: Callable[[FakeHost], str], tmp_path: Path) -> Post:
    """Post a comment as a job for pull request 7; ``event`` and variables may be others."""

    def post(
        host: FakeHost, text: str | Callable[[int], str] = "## report", event: object = None,
        name: str = "", **more: str,
    ) -> Posted:  # fmt: skip
        path = tmp_path / "event.json"
        head = {"repo": {"full_name": "a/b"}}
        path.write_text(json.dumps(event or {"pull_request": {"number": 7, "head": head}}))
        environ = {
            "github": {
                "GITHUB_ACTIONS": "true",
                "GITHUB_API_URL": url_of(host),
                "GITHUB_REPOSITORY": "a/b",
                "GITHUB_EVENT_PATH": str(path),
                "GITHUB_TOKEN": host.token,
                "GITHUB_WORKFLOW": "evals",
                "GITHUB_JOB": "nightly job",
                "GITHUB_RUN_ID": "5",
            },
            "gitlab": {
                "GITLAB_CI": "true",
                "CI_API_V4_URL": url_of(host),
                "CI_PROJECT_ID": "12",
                "CI_MERGE_REQUEST_PROJECT_ID": "12",
                "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "12",
                "CI_MERGE_REQUEST_IID": "7",
                "CI_MERGE_REQUEST_PROJECT_URL": "https://gitlab.example.org/a/b",
                "CI_JOB_NAME": "evals 1/2",
                "CI_JOB_URL": "https://gitlab.example.org/a/b/-/jobs/5",
                "GITLAB_TOKEN": host.token,
            },
        }[host.kind]
        environ = {k: v for k, v in {**environ, **more}.items() if v}
        posted = post_comment(text if callable(text) else lambda _: text, environ, name)
        assert host.token not in posted.text
        assert "\n" not in posted.text
        return posted

    return post


def test_a_comment_is_made_and_then_updated_in_place(host: FakeHost, post: Post) -> None:
    host.add("I like it", by="someone")
    first = post(host, "## one")
    assert (first.is_ok, first.text.partition(": ")[0]) == (True, "commented")
    assert "#101" in first.text or "#note_101" in first.text
    second = post(host, "## two")
    assert (second.is_ok, second.text.partition(": ")[0]) == (True, "updated the comment")
    assert len(host.comments) == 2
    body = host.comments[1]["body"]
    assert body.startswith(f"{MARKER[host.kind]}\n## two\n")
    assert "[the job](https://" in body


def test_an_earlier_comment_is_found_on_a_later_page(host: FakeHost, post: Post) -> None:
    for i in range(7):
        host.add(f"comment {i}", by="someone")
    host.add(f"{MARKER[host.kind]}\nold")
    assert post(host).text.startswith("updated")
    assert len(host.comments) == 8
    assert sum(line.startswith("GET") for line in host.log) == 4


@pytest.mark.parametrize("by", ["someone", "me", "system"])
def test_nobody_elses_comment_is_changed(host: FakeHost, post: Post, by: str) -> None:
    quoted = f"> {MARKER[host.kind]}\n> old" if by == "me" else f"{MARKER[host.kind]}\nmine"
    host.add(quoted, by=by)
    assert post(host).text.startswith("commented")
    assert host.comments[0]["body"] == quoted
    post(host, GITHUB_JOB="other", CI_JOB_NAME="other")  # another job has its own
    assert len(host.comments) == 3


def test_two_runs_of_a_job_at_once_leave_one_comment(host: FakeHost, post: Post) -> None:
    host.add("by somebody", by="other")
    host.rival = f"{MARKER[host.kind]}\nof another push"
    assert post(host, "## first").is_ok
    other, own = host.comments
    assert other["body"] == "by somebody"
    assert "## first" in own["body"]
    host.add(own["body"])
    assert post(host, "## second").text.startswith("updated the comment: ")
    assert len(host.comments) == 2
    assert "## second" in host.comments[1]["body"]


def test_a_comment_that_another_run_has_deleted_is_written_to_the_one_that_stays(
    host: FakeHost, post: Post
) -> None:
    host.rival, host.is_merged = f"{MARKER[host.kind]}\nof another push", True
    posted = post(host, "## own")
    (left,) = host.comments
    assert "## own" in left["body"]
    assert posted.text.endswith(str(left["id"]))


def test_a_comment_that_is_alone_is_not_edited(host: FakeHost, post: Post) -> None:
    post(host, "## one")
    assert not any(line.startswith(("PATCH", "PUT")) for line in host.log)


def test_the_legs_of_a_matrix_have_a_comment_each(host: FakeHost, post: Post) -> None:
    for _ in range(2):
        for leg in "0", "1":
            assert post(host, f"leg {leg}", name=leg).is_ok
    assert [c["body"].splitlines()[1] for c in host.comments] == ["leg 0", "leg 1"]


def test_a_persons_token_edits_that_persons_comment(github: FakeHost, post: Post) -> None:
    github.is_person = True
    post(github)
    assert post(github).text.startswith("updated")


@pytest.mark.parametrize(("length", "is_cut"), [(60_000, False), (80_000, True)])
def test_a_long_summary_is_cut_honestly(
    github: FakeHost, post: Post, length: int, is_cut: bool
) -> None:
    def summary(limit: int) -> str:
        assert limit == 64_536
        return "a line of nothing\n" * (length // 18)  # it may not keep to its limit

    assert post(github, summary).is_ok
    body = github.comments[0]["body"]
    assert len(body) <= 65_536
    assert ("… cut here: GitHub takes 65,536 characters" in body) is is_cut
    assert body.endswith("[the job](https://github.com/a/b/actions/runs/5)</sub>\n")


def test_what_is_cut_off_is_not_folded(github: FakeHost, post: Post) -> None:
    flips = "\n".join(f"{i}  7 → 9" for i in range(20_000))
    post(github, f"<details><summary>samples</summary>\n\n<pre>{flips}</pre>\n\n</details>\n")
    body = github.comments[0]["body"]
    folded, _, rest = body.partition("</pre>\n\n</details>")
    assert "<pre>" in folded
    assert "… cut here" in rest
    assert len(body) <= 65_536


REFUSALS = [
    ({"may_write": False}, {}, {"github": "permissions: pull-requests: write",
                                "gitlab": "scope `api` and the role Reporter"}),
    ({"token": "other"}, {"GITHUB_TOKEN": "bad", "GITLAB_TOKEN": "bad"},
     {"github": "the token is not valid", "gitlab": "project access token"}),
    ({}, {"GITHUB_TOKEN": "", "GITLAB_TOKEN": ""},
     {"github": "GITHUB_TOKEN is not set: add `env:", "gitlab": "GITLAB_TOKEN is not set: set"}),
    ({}, {"GITHUB_TOKEN": "s3cr3t-\nt0ken", "GITLAB_TOKEN": "s3cr3t-t0ken”"},
     {"github": "GITHUB_TOKEN has characters that are in no token",
      "gitlab": "GITLAB_TOKEN has characters that are in no token"}),
    ({}, {"GITHUB_REPOSITORY": "no/such", "CI_MERGE_REQUEST_PROJECT_ID": "13",
          "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "13"},
     {"github": "404 Not Found", "gitlab": "404 Not Found"}),
    ({}, {"GITHUB_API_URL": "http://127.0.0.1:9", "CI_API_V4_URL": "http://127.0.0.1:9"},
     {"github": "no answer from http://127.0.0.1:9", "gitlab": "no answer from http://127.0.0.1:9"}),
]  # fmt: skip


def test_the_reason_of_a_refusal_is_said(host: FakeHost, post: Post) -> None:
    host.before_text = "Validation Failed"
    host.before_errors = [{"code": "unprocessable", "message": "Body is too long"}, "odd", {}]
    host.before = [(422, {})]
    assert "422 Validation Failed: Body is too long" in post(host).text


@pytest.mark.parametrize(("state", "variables", "expected"), REFUSALS)
def test_what_is_refused_is_said_in_one_line(
    host: FakeHost,
    post: Post,
    state: dict[str, object],
    variables: dict[str, str],
    expected: dict[str, str],
) -> None:
    for name, value in state.items():
        setattr(host, name, value)
    posted = post(host, **variables)
    assert not posted.is_ok
    assert posted.text.startswith("no comment: ")
    assert expected[host.kind] in posted.text
    assert host.comments == []


def test_forks_are_reported_what_to_do(host: FakeHost, post: Post) -> None:
    host.may_write = False
    head = {"repo": {"full_name": "forker/b"}}
    event = {"pull_request": {"number": 7, "head": head}}
    posted = post(host, event=event, CI_MERGE_REQUEST_SOURCE_PROJECT_ID="99")
    assert "fork" in posted.text
    assert "#pull-requests-from-forks" in posted.text


WORKFLOW_RUNS = [
    ({"event": "pull_request", "pull_requests": [{"number": 7}]}, "commented"),
    ({"event": "pull_request", "pull_requests": [], "head_branch": "branch", "head_sha": "new",
      "head_repository": {"owner": {"login": "forker"}}}, "commented"),
    ({"event": "pull_request", "pull_requests": [], "head_branch": "gone", "head_sha": "new",
      "head_repository": {"owner": {"login": "forker"}}}, "for no pull or merge request"),
    ({"event": "push", "pull_requests": []}, "for no pull or merge request"),
    ({"event": "pull_request", "pull_requests": [
        {"number": 3, "base": {"repo": {"id": 2}}}, {"number": 7, "base": {"repo": {"id": 1}}}]},
     "commented"),
]  # fmt: skip


@pytest.mark.parametrize(("run", "expected"), WORKFLOW_RUNS)
def test_the_pull_request_of_a_workflow_run(
    github: FakeHost, post: Post, run: object, expected: str
) -> None:
    posted = post(github, event={"workflow_run": run, "repository": {"id": 1}})
    assert posted.is_ok
    assert expected in posted.text


def test_a_push_and_a_machine_that_is_no_job(host: FakeHost, post: Post) -> None:
    posted = post(host, event={"ref": "refs/heads/main"}, CI_MERGE_REQUEST_IID="")
    assert posted == Posted("no comment: this job is for no pull or merge request", True)
    assert host.log == []
    assert not post_comment(lambda _: "", {}).is_ok


def test_rate_limits_are_waited_for_or_reported(
    host: FakeHost, post: Post, waited: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "time", lambda: 1_800_000_000.0)
    soon, later = "1800000020", "1800003000"
    limited = {"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": soon}
    host.before = [(429, {"Retry_After": "7"}), (403, limited), (502, {})]
    assert post(host).is_ok
    assert waited == [7, 21, 5]
    host.before = [(403, {**limited, "X_RateLimit_Reset": later})]
    posted = post(host)
    assert not posted.is_ok
    assert "rate limit is reached for 3,001 seconds more" in posted.text


def test_a_limit_that_no_header_tells_is_no_missing_permission(
    host: FakeHost, post: Post, waited: list[float]
) -> None:
    host.before_text = "You have exceeded a secondary rate limit."
    host.before = [(403, {})]
    assert post(host).is_ok
    assert waited == [60]
    host.before = [(403, {}), (403, {})]
    posted = post(host)
    assert not posted.is_ok
    assert "its rate limit is reached for 60 seconds more" in posted.text
    assert "permissions" not in posted.text


def test_a_comment_is_not_made_twice_if_the_answer_is_lost(
    github: FakeHost, post: Post, waited: list[float]
) -> None:
    original = github.respond

    def respond(request):  # type: ignore[no-untyped-def]
        if request.command == "POST":
            github.log.append("POST")
            request.give(502, b"")
        else:
            original(request)

    github.respond = respond  # type: ignore[method-assign]
    assert "502" in post(github).text
    assert github.log.count("POST") == 1
    assert waited == []


@pytest.mark.parametrize("how", ["redirect", "next page"])
def test_the_token_goes_to_no_other_origin(
    github: FakeHost, post: Post, url_of: Callable[[FakeHost], str], how: str
) -> None:
    other = FakeHost("github")
    url = url_of(other)

    def respond(request):  # type: ignore[no-untyped-def]
        if request.path == "/user":
            request.give(403, b"{}")
        elif how == "redirect":
            request.give(302, b"", Location=f"{url}/repos/a/b/issues/7/comments")
        else:
            request.give(200, b"[]", Link=f'<{url}/more>; rel="next"')

    github.respond = respond  # type: ignore[method-assign]
    posted = post(github)
    assert "another server" in posted.text
    assert other.log == []


@pytest.mark.parametrize(
    "answer", [b"NOT HTTP\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n["]
)
def test_an_answer_that_breaks_off_is_reported(host: FakeHost, post: Post, answer: bytes) -> None:
    def respond(request):  # type: ignore[no-untyped-def]
        request.wfile.write(answer)
        request.close_connection = True

    host.respond = respond  # type: ignore[method-assign]
    assert "no answer from http://127.0.0.1" in post(host).text


def test_space_around_a_token_is_no_part_of_it(host: FakeHost, post: Post) -> None:
    given = f" {host.token}\n"
    assert post(host, GITHUB_TOKEN=given, GITLAB_TOKEN=given).is_ok


def test_a_server_that_never_lets_wait_is_given_up(
    host: FakeHost, post: Post, waited: list[float]
) -> None:
    host.before = [(429, {"Retry_After": "0"})] * 200
    assert "its rate limit is reached" in post(host).text
    assert sum(waited) == rest.PATIENCE


def test_an_answer_that_is_none_is_reported(github: FakeHost, post: Post) -> None:
    github.respond = lambda request: request.give(200, b"<html>")  # type: ignore[method-assign]
    assert not post(github).is_ok
    github.respond = lambda request: request.give(200, b'["a"]')  # type: ignore[method-assign]
    assert "cannot be read" in post(github).text
