"""How an evaluation is run again: the command, the patch of a dirty checkout, the packages."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_armory.provenance import git_tags
from pytest_armory.session.installed import environment_text
from pytest_armory.session.patch import working_tree_patch
from pytest_armory.session.reproduce import command_of, command_parts, for_another_job

WORDS = [
    (["--armory-track", "evals"], ["evals"], ""),
    (["-n", "4", "-x", "-k", "pgd", "--model=big", "a.py", "b"], ["a.py", "b"], "--model=big"),
    (["-n4", "-kpgd", "-v", "--dist", "loadscope", "-p", "no:randomly"], [], "-v -p no:randomly"),
    (["--data", "evals", "evals"], ["evals"], "--data evals"),
    (["--armory-session", "nightly", "--armory-baseline", "main"], [], "--armory-baseline main"),
    (["--armory-session=a", "--junitxml=x", "-o", "a=b c"], [], "-o 'a=b c'"),
    (["--api-key", "hunter2", "--lf"], [], "--api-key '[redacted]'"),
    (["--armory-tracking-uri", "https://u:pw@h/x"], [],
     "--armory-tracking-uri 'https://[redacted]@h/x'"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "positional", "expected"), WORDS)
def test_options_are_kept_that_concern_one_test(
    tmp_path: Path, arguments: list[str], positional: list[str], expected: str
) -> None:
    before, *_, after = command_parts(arguments, positional, tmp_path, patch=True, environ={})
    assert (before, after) == ("pytest", f"--armory-track {expected}".strip())


def test_the_command_is_one_line_for_a_shell(tmp_path: Path) -> None:
    environ = {"PYTHONHASHSEED": "0", "PYTEST_ADDOPTS": "-p no:x --token=hunter2", "HOME": "/x"}
    parts = command_parts([], [], tmp_path, patch=True, environ=environ)
    command = command_of(parts, "test_a.py::test[it's $(rm) 1]")
    assert command == (
        "PYTEST_ADDOPTS='-p no:x --token=[redacted]' PYTHONHASHSEED=0 pytest "
        "'test_a.py::test[it'\"'\"'s $(rm) 1]' --armory-track"
    )
    assert len(command_of(parts, "x" * 10_000)) <= 8000


def git(folder: Path, *arguments: str) -> None:
    named = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.autocrlf=false")
    subprocess.run(["git", *named, *arguments], cwd=folder, check=True, capture_output=True)


FILES = {
    "evals/test_a.py": b"a = 1\n",
    "evals/crlf.txt": b"one\r\ntwo\r\n",
    "evals/latin.txt": b"caf\xe9\n",
    "evals/gone.py": b"x\n",
    "evals/a name's.py": b"x\n",
    "evals/config.py": b"x = 1\n",
    "evals/old.py": b"password = 'hunter2'\nx = 1\n",
    "evals/.env": b"A=1\n",
    "evals/picture.bin": b"\0\1\2",
    "evals/large.py": b"x\n",
}
CHANGED = {
    "evals/test_a.py": b"a = 2\n",
    "evals/crlf.txt": b"one\r\nthree\r\n",
    "evals/latin.txt": b"caf\xe9s\n",
    "evals/gone.py": None,
    "evals/a name's.py": b"y",
}
LEFT_OUT = {
    "evals/config.py": (b"x = 1\napi_key = 'hunter2'\n", "looks like a secret"),
    "evals/old.py": (b"password = 'hunter2'\nx = 2\n", "looks like a secret"),
    "evals/.env": (b"A=hunter2\n", "its name says"),
    "evals/picture.bin": (b"\0\1\3", "binary"),
    "evals/large.py": (b"y" * 5000, "too large"),
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a commit, and every kind of change."""
    folder = tmp_path / "checkout"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    for arguments in (("init", "-q"), ("add", "."), ("commit", "-qm", "one")):
        git(folder, *arguments)
    git_tags.cache_clear()
    shutil.copytree(folder, tmp_path / "clean")
    for name, content in {**CHANGED, **{k: v for k, (v, _) in LEFT_OUT.items()}}.items():
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
    return folder


def test_the_patch_makes_the_tree_again_without_secrets(checkout: Path, tmp_path: Path) -> None:
    patch = working_tree_patch(checkout / "evals", limit=4000)
    assert b"hunter2" not in patch
    clean = tmp_path / "clean"
    (tmp_path / "uncommitted.patch").write_bytes(patch)
    git(clean, "apply", str(tmp_path / "uncommitted.patch"))
    for name, content in CHANGED.items():
        assert ((clean / name).read_bytes() if (clean / name).exists() else None) == content
    for name, (_, reason) in LEFT_OUT.items():
        assert (clean / name).read_bytes() == FILES[name]
        (line,) = [x for x in patch.decode("latin-1").splitlines() if x.startswith("left out: ")
                   and repr(name) in x]  # fmt: skip
        assert reason in line


def test_the_command_says_commit_patch_and_folder(checkout: Path) -> None:
    commit = git_tags(checkout)["mlflow.source.git.commit"][:12]
    before, *_ = command_parts([], [], checkout / "evals", patch=True, environ={})
    assert before == f"git checkout {commit} && git apply uncommitted.patch && cd evals && pytest"
    without, *_ = command_parts([], [], checkout / "evals", patch=False, environ={})
    assert without == f"git checkout {commit} && cd evals && pytest"


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_patch_of_nothing_is_not_applied(checkout: Path, name: str) -> None:
    """It names what it lacks; ``git apply`` would refuse it."""
    large = "y" * 2_000_000 if "large" in name else None
    for path in CHANGED.keys() | LEFT_OUT.keys():
        if path != name:
            (checkout / path).write_bytes(FILES[path])
        elif large:
            (checkout / path).write_text(large)
    git_tags.cache_clear()
    assert git_tags(checkout)["armory.git.dirty"] == "true"
    assert working_tree_patch(checkout).startswith(b"left out: ")
    before, *_ = command_parts([], [], checkout, patch=True, environ={})
    assert "git apply" not in before


def test_the_command_runs_where_pytest_was_called(checkout: Path, tmp_path: Path) -> None:
    """Paths in options are relative to that, and node ids to the root directory."""
    (checkout / "more").mkdir()
    cases = [
        (checkout / "evals", "cd evals && pytest test_a.py::t"),
        (checkout / "more", "cd more && pytest ../evals/test_a.py::t"),
        (checkout, "&& pytest evals/test_a.py::t"),
        (tmp_path, "&& pytest evals/test_a.py::t"),
    ]
    for start, expected in cases:
        given = ["-c", "../pytest.ini"]
        parts = command_parts(given, [], checkout, patch=True, environ={}, start=start)
        assert f"{expected} --armory-track -c ../pytest.ini" in command_of(
            parts, "evals/test_a.py::t"
        )


def test_no_checkout_has_no_patch(tmp_path: Path) -> None:
    assert working_tree_patch(tmp_path) == b""


def test_the_environment_as_text(tmp_path: Path) -> None:
    for name in ("Foo_Bar-1.2.dist-info", "foo.bar-1.0.dist-info", "old-3-py3.8.egg-info", "x.py"):
        folder = tmp_path / ("second" if name.startswith("foo") else "first") / name
        folder.mkdir(parents=True)
    card = tmp_path / "gpus" / "0000:01:00.0" / "information"
    card.parent.mkdir(parents=True)
    card.write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 1\n")
    cpus = tmp_path / "cpuinfo"
    cpus.write_text("processor : 0\nmodel name\t: Some CPU @ 2 GHz\n")
    path = [str(tmp_path / name) for name in ("first", "second", "missing")]
    text = environment_text(path, tmp_path / "gpus", cpus)
    heading, _, packages = text.partition("\n\n")
    assert [line.partition(":")[0] for line in heading.splitlines()] == [
        "python", "platform", "cpu", "gpu",
    ]  # fmt: skip
    assert "cpu: Some CPU @ 2 GHz, " in heading
    assert "gpu: NVIDIA H100 80GB HBM3" in heading
    assert packages == "foo-bar==1.2\nold==3\n"
    assert "\npytest==" in environment_text()


def test_another_jobs_files_have_names_of_their_own() -> None:
    one, two = (for_another_job({"environment.txt": "x"}, shard) for shard in ("a:1", "b:1"))
    assert one.keys() != two.keys()
    assert next(iter(one)).startswith("environment-")
    assert for_another_job(one, "b:1") == one
