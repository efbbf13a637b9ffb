"""What a session is across processes and machines: its identity, its runs, its end."""
