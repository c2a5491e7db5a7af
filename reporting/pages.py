"""What all pages share: templates in which every value is escaped, and files that go in whole."""

import base64
import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup


def page_template(name: str) -> jinja2.Template:
    """A page's template, in which every value is escaped."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template(name)


def beside(name: str) -> Markup:
    """The content of a file of this room, as it is."""
    return Markup(Path(__file__).with_name(name).read_text())


def embedded_json(content: Any) -> Markup:
    """JSON that stands in an element `script`, which no text in it ends."""
    return Markup(json.dumps(content, ensure_ascii=False).replace("<", "\\u003c"))


def data_address(content: bytes, kind: str) -> str:
    """A picture of that kind, such as "png", as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
