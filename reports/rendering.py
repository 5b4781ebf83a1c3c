"""The templates, loaded so that whatever a run says in them is text: escaped, and printable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import format as fmt

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["TEMPLATES", "styles", "template"]

TEMPLATES = Path(__file__).parent / "templates"


def template(name: str) -> Template:
    """One of the templates; `fmt` is there in all of them."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        return fmt.printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(fmt=fmt)
    return environment.get_template(name)


def styles(*names: str) -> Any:
    """Style sheets that lie beside the templates, one after the other, as they are."""
    from markupsafe import Markup

    return Markup("\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names))  # noqa: S704
