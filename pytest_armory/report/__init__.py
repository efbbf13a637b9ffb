"""Records -> what people read: the terminal, Markdown, JUnit. Pure."""
