"""Pages out of templates: everything that is put in is escaped, and nothing in them points outside."""

from importlib import resources
from pathlib import Path
from typing import Any

from mocme_jax.data.whole_files import write_atomically
from mocme_jax.errors import UserError, one_line
from mocme_jax.printed_commands import to_install


def check_extra() -> None:
    """Raises a UserError where what the report is made with is not installed."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"the report needs {error.name}, which is not installed; run: {to_install(extra='report')}"
        ) from error


def render(template: str, context: dict[str, Any], package: str = "mocme_jax.report") -> str:
    """The page that a file of a package's folder ``templates`` makes of a context; a missing name is an error."""
    import jinja2
    from markupsafe import Markup

    def printable(value: Any) -> Any:
        # Names come from strangers: no line breaks, no turning of the reading direction, no half of a character.
        return one_line(value) if type(value) is str else value

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "score": lambda value, digits=3: _told(value, f",.{digits}f"),
        "signed": lambda value: _told(value, "+.3f").replace("-", "−"),
        # Adding 0 after rounding makes -0.000 a plain 0.000.
        "lost": lambda value: _told(round(value, 3) + 0.0, ".3f").replace("-", "−"),
        "percent": _percent,
        "count": lambda value: _told(value, ","),
    }
    return environment.get_template(template).render(style=Markup(style(package)), **context)


def style(package: str = "mocme_jax.report") -> str:
    """What a package's pages look like, as CSS."""
    return resources.files(package).joinpath("templates", "style.css").read_text("utf-8")


def write_page(path: Path, text: str) -> None:
    """Writes a page whole, or raises a UserError."""
    try:
        write_atomically(path, lambda file: file.write(text.encode()))
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path}: cannot be written ({reason}); give another file with --out=FILE") from error


def _percent(share: float | None, digits: int = 0) -> str:
    """A share; one that would be rounded to nothing is told to be below the last digit: it is there."""
    text, nothing = _told(share, f".{digits}%"), f"{0:.{digits}%}"
    return f"<{10.0 ** -(digits + 2):.{digits}%}" if share and text == nothing else text


def _told(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
