"""HTML pages from the templates in ``templates/``: whole in themselves, no script, nothing from the network."""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

TEMPLATES = Path(__file__).parent / "templates"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(value: Any) -> str:
    """Text that UTF-8 and HTML can hold: lone surrogates as their escapes, control characters as visible symbols."""
    text = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return _CONTROL.sub(lambda match: chr(0x2400 + ord(match[0])) if ord(match[0]) < 0x20 else "\ufffd", text)


def render_page(template: str, **values: Any) -> str:
    """The page of ``template``, a file in ``templates/``; every value is made `printable` first and escaped then."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, finalize=printable)
    return environment.get_template(template).render(**values)
