"""Malformed files for every reader: see ``python -m tests.fuzz --help`` and docs/explanation/reliability.md."""
