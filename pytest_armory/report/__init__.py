"""Records as terminal lines, Markdown and JUnit properties. Pure; only ``files`` writes.

Node ids and values may contain any characters; none of them breaks a line, a table or an escape
sequence: :func:`~pytest_armory.report.text.printable` and
:func:`~pytest_armory.report.markdown.literal` see to that.
"""
