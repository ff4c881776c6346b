"""Malformed files for every reader of the package: see ``python -m tests.fuzz --help`` and docs/explanation/reliability.md."""
