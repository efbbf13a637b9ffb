"""``--armory-shard``: a part of the collection, tracked or not."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import pytest
from conftest import Evals

SUITE = """
    import pytest
    @pytest.fixture(scope="session", params=["x", "y"])
    def wide(request): return request.param
    @pytest.mark.evaluation
    @pytest.mark.parametrize("i", range(4))
    def test_a(i): pass
    def test_b(wide): pass
    def test_c(wide): pass
"""
ORDER = [*(f"test_a[{i}]" for i in range(4)), "test_b[x]", "test_c[x]", "test_b[y]", "test_c[y]"]


def names(result: pytest.RunResult) -> list[str]:
    return [name for line in result.outlines for name in re.findall(r"::(test_\S+)", line)]


def collect(evals: Evals, shard: str, *args: str) -> list[str]:
    result = evals.run("--armory-shard", shard, "--collect-only", "-q", *args, track=False)
    assert result.ret == 0
    return names(result)


def test_stretches_of_pytests_own_order(evals: Evals) -> None:
    """The split is the same whatever plugins make of the order; each shard runs in theirs."""
    evals.write(SUITE)
    plain = [collect(evals, f"{i}/4") for i in (1, 2, 3, 4)]
    # pytest has put the tests of each of the fixture's parameters together.
    assert plain == [ORDER[:2], ORDER[2:4], ORDER[4:6], ORDER[6:]]
    evals.pytester.makeconftest("""
        import pytest
        @pytest.hookimpl(tryfirst=True)
        def pytest_collection_modifyitems(items): items.reverse()
        class Wrapper:
            @pytest.hookimpl(wrapper=True, tryfirst=True)
            def pytest_collection_modifyitems(self, items):
                items.sort(key=lambda item: item.name)
                return (yield)
        def pytest_configure(config): config.pluginmanager.register(Wrapper())
    """)
    mixed = [collect(evals, f"{i}/4") for i in (1, 2, 3, 4)]
    assert list(map(sorted, mixed)) == list(map(sorted, plain))
    assert mixed != plain
    assert collect(evals, "2/2", "-k", "test_c or test_a", "-m", "not evaluation") == ["test_c[y]"]
    left = collect(evals, "3/3", "--deselect", "test_it.py::test_c")
    assert sorted(left) == ["test_b[x]", "test_b[y]"]


def test_the_part_is_that_of_the_session_not_of_its_workers(
    evals: Evals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their environment may be another, as on another machine."""
    evals.write(SUITE)
    path = evals.pytester.path / "durations.json"
    path.write_text(json.dumps({"test_it.py::test_a[0]": 9, "test_it.py::test_a[1]": 0.1}))
    monkeypatch.setenv("CI_NODE_INDEX", "1")
    monkeypatch.setenv("CI_NODE_TOTAL", "2")
    worker = ("--dist=load", "--tx=popen//env:CI_NODE_INDEX=2")
    options = ("--armory-shard=auto", "--armory-durations=durations.json")
    result = evals.run(*options, *worker, "-v", track=False)
    assert result.ret == 0
    assert set(names(result)) == {"test_a[0]", "test_a[1]"}


def test_balanced_by_durations(evals: Evals) -> None:
    evals.write(SUITE)
    path = evals.pytester.path / "durations.json"
    path.write_text(
        json.dumps(
            {f"test_it.py::{name}": 1 for name in ORDER[1:]}
            | {"test_it.py::test_a[0]": 7.0, "gone.py::test": 100.0}
        )
    )
    assert collect(evals, "1/2", "--armory-durations", path.name) == ORDER[:1]
    evals.pytester.makeini(f"[pytest]\narmory_durations = {path.name}")
    assert collect(evals, "2/2") == ORDER[1:]


REFUSED = [
    (("--armory-shard", ""), "*must be I/N, auto or auto/N, got ''*"),
    (("--armory-shard", "3/2"), "*must be I/N with I from 1 to N, got 3/2*"),
    (("--armory-shard", "auto"), "*auto needs an environment that numbers its jobs*"),
    (("--armory-shard", "1/2", "--armory-durations", "none"), "*none cannot be read*"),
    (("--armory-shard", "1/2", "--armory-durations", "test_it.py"), "*must be a JSON object*"),
    (("--armory-durations", "none"), "*add --armory-shard*"),
]


@pytest.mark.parametrize(("args", "expected"), REFUSED)
def test_nonsense_is_a_usage_error(evals: Evals, args: Sequence[str], expected: str) -> None:
    evals.write(SUITE)
    result = evals.run(*args, track=False)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: armory: {expected}"])


def test_kubernetes_must_give_a_session(evals: Evals, monkeypatch: pytest.MonkeyPatch) -> None:
    evals.write(SUITE)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "7")
    result = evals.run("--armory-shard=auto/8")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*needs the session's ID*--armory-session*"])
    evals.run("--armory-shard=auto/8", track=False).assert_outcomes(passed=1, deselected=7)


@pytest.mark.parametrize("way", [("-n0",), ("-n1",)], ids=["n0", "n1"])
def test_shards_share_a_session(
    evals: Evals, way: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that has no evaluation, and one that has no test, leave their note."""
    evals.write(SUITE)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "77")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "9")
    for task in (0, 8):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        result = evals.run("--armory-shard=auto", *way)
        assert result.ret == 0
        result.stdout.fnmatch_lines(
            [f"armory: shard {task + 1}/9 from SLURM_ARRAY_TASK_ID, session 77 from SLURM_ARRAY_J*"]
        )
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    result = evals.run("--armory-shard=auto", *way)
    result.stdout.fnmatch_lines(["warning: shard 1/9 has run twice in this session*"])
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "20")
    result = evals.run("--armory-shard=auto", *way)
    assert (result.ret, result.parseoutcomes().get("passed")) == (0, None)
    (session,) = evals.sessions()
    tags = session.data.tags
    notes = [json.loads(tags[name]) for name in tags if name.startswith("armory.took.")]
    assert [note["collected"] for note in notes] == [8] * 4
    assert len({note["digest"] for note in notes}) == 1
    took = sorted((note["index"], note["took"], note["evaluations"]) for note in notes)
    assert took == [(1, 0, 0), (1, 1, 1), (1, 1, 1), (9, 1, 0)]
    assert "armory.part" not in tags
    parts = [r.data.tags["armory.part"] for r in evals.read() if "armory.nodeid" in r.data.tags]
    assert parts == ["1/9", "1/9"]


@pytest.mark.parametrize("way", [("-n0",), ("-n1",)], ids=["n0", "n1"])
def test_a_shard_says_that_its_note_waits_for_a_server(evals: Evals, way: Sequence[str]) -> None:
    """Where none of its evaluations does, for it has none."""
    evals.write(SUITE)
    server = ("--armory-tracking-uri=http://127.0.0.1:9", "-o", "armory_budget=1")
    for shard, waits in (("9/9", False), ("1/9", True)):
        result = evals.run("--armory-session=s", f"--armory-shard={shard}", *server, *way)
        assert result.ret == 0
        text = result.stdout.str()
        assert ("waiting for http://127.0.0.1:9: 1 evaluation, recorded locally" in text) is waits
        assert ("the end of this job is recorded locally, `pytest-armory sync" in text) is not waits


def test_no_session_from_the_environment_without_a_shard(
    evals: Evals, monkeypatch: pytest.MonkeyPatch
) -> None:
    evals.write(SUITE)
    monkeypatch.setenv("GITHUB_RUN_ID", "5")
    evals.run()
    monkeypatch.setenv("ARMORY_SESSION", "mine")
    evals.run("--armory-shard", "1/2")
    ids = [run.data.tags["armory.session"] for run in evals.sessions()]
    assert "5" not in ids
    assert "mine" in ids
