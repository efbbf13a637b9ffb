"""Records -> what people read: terminal, Markdown, JUnit. Pure strings; only ``files`` writes.

Whatever stands in a node id or a value, nothing here lets it break a line, a table or an escape
sequence: :func:`~pytest_armory.report.text.printable` and
:func:`~pytest_armory.report.markdown.literal` see to that.
"""
