"""The embedded graph "atlas": countries, cities, regions and what belongs to them (see DATASHEET.md)."""

from pathlib import Path

FOLDER = Path(__file__).parent
"""Folder of the graph's files."""

MODEL = FOLDER / "model"
"""Folder of a run on the graph: a small trained model, so that the first query needs no training."""
