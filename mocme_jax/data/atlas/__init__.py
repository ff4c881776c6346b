"""The embedded graph "atlas": countries, cities, regions and what belongs to them (see DATASHEET.md)."""

from pathlib import Path

FOLDER = Path(__file__).parent
"""Where the files of the graph lie."""
