"""Uploading what was recorded locally: ``pytest-armory sync``."""
