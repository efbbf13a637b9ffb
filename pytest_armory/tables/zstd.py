"""Data compressed with Zstandard, which the standard library reads from Python 3.14 on."""

from __future__ import annotations

from importlib import import_module


def decompressed(data: bytes) -> bytes:
    """The content of a frame of Zstandard. Raises ``OSError`` for anything else."""
    pyarrow = import_module("pyarrow")

    with pyarrow.CompressedInputStream(pyarrow.BufferReader(data), "zstd") as stream:
        content: bytes = stream.read()
    return content
