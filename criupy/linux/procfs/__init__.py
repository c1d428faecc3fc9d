"""Parsers of /proc texts: pure functions from bytes to facts, one module per group of files."""
