"""Samples: one row for each sample of an evaluation, in memory and as files.

A :class:`SampleTable` holds all samples of one evaluation. That of the running one, tracked or not,
is ``run.writer.samples.table``;
:func:`~pytest_armory.tables.files.read_parquet` makes one of the bytes of a stored
``samples.parquet``. Both are asked in the same way::

    table.names                   # the scores, by the names that their metrics have
    score = table.score("accuracy")  # None where there is none of that name
    score.ids, score.values       # NumPy arrays of one length; an id is an integer or a text
    score.groups, score.repeats   # the same, or None where none were given
    score.targets, score.predictions  # the same, or None where there are none
    score.digest                  # over the sorted pairs (id, target), without repeats
    score.valid                   # without the rows whose value is NaN: those that had an error
    score.clusters                # what belongs together: groups, ids that repeat, or None
    score.mean                    # over the valid rows; None where there are none
    table.column("question")      # a user's own column, with the ids of its rows

Arrays are copies: the running evaluation goes on adding rows. NumPy is imported when an array is
asked for, pyarrow when a file is written or read; until then rows are in arrays of the standard
library.
"""

from __future__ import annotations

from pytest_armory.tables.columns import UnfitError
from pytest_armory.tables.score import Score, changes
from pytest_armory.tables.table import RESERVED, SampleRows, SampleTable

__all__ = ["RESERVED", "SampleRows", "SampleTable", "Score", "UnfitError", "changes"]
