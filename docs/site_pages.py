"""Sphinx extension: pages made from the program, and links to its files.

The directive ``commands`` shows the help of every command, and ``config-fields`` every config field. A link to a file
of the repository becomes a link to its documentation if there is one, else plain text. A notebook is shown as a page.
"""

import contextlib
import importlib
import io
import json
import re
import sys
from pathlib import Path
from unittest import mock

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from mocme_jax.__main__ import COMMANDS
from mocme_jax.config_fields import FIELDS, SECTIONS
from mocme_jax.config_values import allowed, show

# [text](../../mocme_jax/method/egns.py), with or without a folder before it.
FILE_LINK = re.compile(r"\[([^\]\n]+)\]\((?:\.\./)+((?:mocme_jax|tests|configs|launch)/[^)#\s]*|[A-Z]+\.\w+)\)")


def help_of(command: str) -> str:
    """What ``mocme COMMAND --help`` prints, without the config fields."""
    printed = io.StringIO()
    with (
        mock.patch.object(sys, "argv", [f"mocme {command}", "--help"]),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        importlib.import_module(f"mocme_jax.{COMMANDS[command]}").main()
    return printed.getvalue().partition("\nFields of config")[0].rstrip() + "\n"


class Commands(SphinxDirective):
    """One section per command."""

    def run(self) -> list[nodes.Node]:
        """Builds the sections."""
        sections = []
        for name in COMMANDS:
            text = nodes.literal_block("", help_of(name), language="text")
            sections.append(nodes.section("", nodes.title("", f"mocme {name}"), text, ids=[name]))
        return sections


class ConfigFields(SphinxDirective):
    """One section per group of fields, one entry per field."""

    def run(self) -> list[nodes.Node]:
        """Builds the sections."""
        sections = {}
        for path, field in FIELDS.items():
            group = path.rpartition(".")[0]
            if group not in sections:
                sections[group] = nodes.section("", nodes.title("", SECTIONS[group]), ids=[f"fields-{group or 'run'}"])
                sections[group] += nodes.definition_list()
            bounds = f" ({allowed(field)})" if allowed(field) else ""
            meaning = nodes.paragraph("", f"{field.meaning[0].upper()}{field.meaning[1:]}{bounds}.")
            default = nodes.paragraph("", "Default: ", nodes.literal("", show(field.default)))
            term = nodes.term("", "", nodes.literal("", path), ids=[path.replace(".", "-")])
            sections[group][-1] += nodes.definition_list_item("", term, nodes.definition("", meaning, default))
        return list(sections.values())


def link_files(app, name: str, source: list[str]) -> None:
    """Rewrites links to files of the repository, which the site does not have."""

    def target(match: re.Match) -> str:
        text, path = match[1], match[2]
        identifier = re.fullmatch(r"`(\w+)`", text)
        if identifier and path.startswith("mocme_jax/method/"):
            module = path.removesuffix(".py").replace("/", ".")
            return f"{{py:obj}}`{identifier[1]} <{module}.{identifier[1]}>`"
        return text if "`" in text else f"`{path}`"

    source[0] = FILE_LINK.sub(target, source[0])


def show_notebook(app, name: str, source: list[str]) -> None:
    """Turns a notebook into Markdown: its texts, its code, and the text of its outputs."""
    if Path(app.env.doc2path(name)).suffix != ".ipynb":
        return
    parts = []
    for cell in json.loads(source[0])["cells"]:
        text = "".join(cell["source"])
        parts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
        for output in cell.get("outputs", ()):
            lines = output.get("text") or output.get("data", {}).get("text/plain") or output.get("traceback", ())
            parts.append(f"```text\n{''.join(lines).rstrip()}\n```")
    source[0] = "\n\n".join(parts)


def skip_fields(app, what: str, name: str, found: object, skip: bool, options) -> bool | None:
    """Leaves out the fields of a named tuple, which its docstring describes."""
    return True if type(found).__name__ == "_tuplegetter" else None


def setup(app) -> dict:
    """Registers the directives and the rewriting of links."""
    app.add_directive("commands", Commands)
    app.add_directive("config-fields", ConfigFields)
    app.connect("source-read", show_notebook)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("source-read", link_files)
    return {"parallel_read_safe": True}
