"""The artifacts of a run: their files on this machine, and their names at a server."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from urllib.parse import unquote, urlparse, urlsplit, urlunparse
from urllib.request import url2pathname

from pytest_armory.errors import ArmoryUsageError, TrackingError
from pytest_armory.records.tags import REMOTE_RUN
from pytest_armory.store import StoredRun, credentials
from pytest_armory.store.artifacts import RunArtifacts
from pytest_armory.store.destination import Destination, resolve
from pytest_armory.store.transfer import TransferEnd


def upload_artifacts(
    source: TransferEnd,
    run: StoredRun,
    target: TransferEnd,
    copy: StoredRun,
    is_new: bool,
    notes: list[str],
    rename: Callable[[str], str] = str,
) -> Iterator[str]:
    """Upload a run's artifacts that its copy lacks; yields the progress.

    ``rename`` gives each path its path at the target, or "" for what is left out.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = _files_of(source, run, target.store.destination, Path(folder, "download"), notes)
        files = {rename(path): file for path, file in files.items() if rename(path)}
        if not files:
            return
        artifacts = target.artifacts_of(copy)
        # The session itself may have stored an older file of the same size there.
        may_have_some = not is_new and REMOTE_RUN not in run.tags
        yield from _upload_files(files, artifacts, may_have_some, notes)


def check_folder(source: TransferEnd, run: StoredRun) -> None:
    """Raise :class:`TrackingError` if a run's artifacts are files outside its database's folder.

    Whoever can write to the database can name any folder, and the server that it is sent to.
    """
    home = source.store.destination.artifacts
    if home is None or urlsplit(run.artifact_uri).scheme not in ("", "file"):
        return
    folder = _local_folder(source, run, [])
    if not folder.resolve().is_relative_to(home.resolve()) and _files_below(folder):
        raise TrackingError(f"its artifacts are in {folder}, which is not below {home}")


def _upload_files(
    files: Mapping[str, Path], artifacts: RunArtifacts, may_have_some: bool, notes: list[str]
) -> Iterator[str]:
    names = {path: http_name(path) if artifacts.is_http else path for path in files}
    sizes = artifacts.sizes(names.values()) if may_have_some else {}
    for index, (path, file) in enumerate(files.items(), 1):
        name = names[path]
        if name != path:
            notes.append(f"the artifact {path!r} is stored as {name!r}: HTTP cannot carry its name")
        if sizes.get(name) != file.stat().st_size:
            yield f"artifact {index:,} of {len(files):,}"
            artifacts.store(file, name, path)


def _files_of(
    source: TransferEnd, run: StoredRun, target: Destination, download: Path, notes: list[str]
) -> dict[str, Path]:
    """A run's artifacts by path, downloaded if they are not files of this machine."""
    if urlsplit(run.artifact_uri).scheme in ("", "file"):
        return _files_below(_local_folder(source, run, notes))
    download.mkdir()
    # Whoever can write to the database can name any server there, as in a run's tag.
    are_for_it = _are_for(run.artifact_uri, target)
    with nullcontext() if are_for_it else credentials.withheld():
        source.download_artifacts(run, download)
    return _files_below(download)


def _are_for(artifact_uri: str, target: Destination) -> bool:
    """Whether the credentials for a server are for what has the artifacts, too."""
    try:
        return credentials.are_for(resolve(artifact_uri), target)
    except ArmoryUsageError:  # a cloud's storage, which has credentials of its own
        return False


def _local_folder(source: TransferEnd, run: StoredRun, notes: list[str]) -> Path:
    """The folder of a run's artifacts, also if the Armory home was copied from another machine."""
    recorded = Path(url2pathname(urlsplit(run.artifact_uri).path))
    present = source.store.destination.artifacts
    if recorded.parent.parent.exists() or present is None:
        return recorded
    inside = re.sub(r"^.*/mlruns/artifacts/", "", recorded.as_posix())
    home = Path(recorded.as_posix().partition("/mlruns/artifacts/")[0])
    if not home.exists() and (not present.exists() or inside == recorded.as_posix()):
        notes.append(f"its artifacts, if it has any, are not on this machine: no folder {recorded}")
    return present / inside


def _files_below(root: Path) -> dict[str, Path]:
    found = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path for path in found}


_LOOKALIKES = {ord(ascii_): chr(ord(ascii_) + 0xFEE0) for ascii_ in "#%?;"}
"""Characters with a meaning in a URL, and their full-width forms."""


def http_name(path: str) -> str:
    """The path of an artifact at an HTTP server of MLflow: unchanged, if possible.

    MLflow puts it into a URL without quoting it, to upload and to download it; its server decodes
    it repeatedly, and refuses `#`. In a path that would be changed by that, or could not be
    downloaded, such characters are replaced by full-width ones, and control characters by the
    replacement character.
    """
    name = "".join(c if c.isprintable() else "\ufffd" for c in path)
    return name if _is_kept_by_http(name) else name.translate(_LOOKALIKES)


def _is_kept_by_http(path: str) -> bool:
    inside = f"1/run/artifacts/{path}"
    return not set("#?") & set(path) and urlunparse(urlparse(unquote(inside))) == inside
