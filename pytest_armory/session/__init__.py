"""A session across processes and machines: its identity, its runs, its end."""
