"""Figures of a submission: PNG and SVG that show and do nothing else.

Nothing embeds them; a reader may still open one in a browser, so an SVG with a script or a reference is refused.
"""

from __future__ import annotations

import re
import struct
from xml.parsers import expat

from benchmark.errors import SubmissionError
from benchmark.files import decoded, shown

PNG = b"\x89PNG\r\n\x1a\n"
SIDE = 8000
SVG_ELEMENTS = {
    "svg", "metadata", "rdf", "work", "type", "date", "format", "creator", "agent", "title", "desc", "defs", "style",
    "g", "path", "use", "rect", "line", "polyline", "polygon", "circle", "ellipse", "text", "tspan", "image",
    "clippath", "lineargradient", "stop", "symbol", "marker", "pattern", "mask",
}  # fmt: skip
EMBEDDED = "data:image/png;base64,"
CSS_FUNCTIONS = {
    "url", "matrix", "translate", "scale", "rotate", "skewx", "skewy", "rgb", "rgba", "hsl", "hsla", "calc",
}  # fmt: skip
"""Those that fetch nothing; `url` only of a part of the figure. Others, such as `image-set`, take an address as a string."""


def check_image(name: str, content: bytes) -> None:
    """Raises `SubmissionError` on what is no such figure."""
    if name.endswith(".png"):
        if not content.startswith(PNG) or content[12:16] != b"IHDR" or len(content) < 33:
            raise SubmissionError(f"{name}: not a PNG file")
        wide, high = struct.unpack(">II", content[16:24])
        if not (0 < wide <= SIDE and 0 < high <= SIDE):
            raise SubmissionError(f"{name}: {wide} by {high} pixels; at most {SIDE} by {SIDE}")
        return
    _Svg(name).check(decoded(content, name))


class _Svg:
    """Reads an SVG file event by event and refuses what is not in the list of things that draw."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.elements: list[str] = []
        self.text: list[str] = []

    def check(self, text: str) -> None:
        parser = expat.ParserCreate(encoding="utf-8")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._doctype
        parser.ProcessingInstructionHandler = self._instruction
        parser.StartElementHandler = self._element
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self.text.append
        try:
            parser.Parse(text.encode(), True)
        except expat.ExpatError as problem:
            raise SubmissionError(f"{self.name}: not an SVG file ({problem})") from problem

    def _refuse(self, what: str) -> None:
        raise SubmissionError(f"{self.name}: {what}; a figure only draws")

    def _doctype(self, kind: str, system: str | None, public: str | None, internal: int) -> None:
        if internal or kind != "svg":
            self._refuse("a document type with declarations of its own")

    def _instruction(self, target: str, data: str) -> None:
        self._refuse(f"instruction {shown(target)}")

    def _element(self, element: str, attributes: dict[str, str]) -> None:
        self._check_text()
        self.elements.append(element.rpartition(":")[2].lower())
        if self.elements[-1] not in SVG_ELEMENTS:
            self._refuse(f"element {shown(element)}")
        for attribute, value in attributes.items():
            name = attribute.rpartition(":")[2].lower()
            if name.startswith("on") or name == "base":
                self._refuse(f"attribute {shown(attribute)}")
            if name in ("href", "src") and not value.startswith(("#", EMBEDDED)):
                self._refuse(f"reference {shown(value)}")
            self._style(value)

    def _end(self, element: str) -> None:
        self._check_text()
        self.elements.pop()

    def _check_text(self) -> None:
        """Check the text since the last tag as one: the parser hands it over in pieces, which a reference may cut anywhere."""
        text = "".join(self.text)
        self.text.clear()
        if "style" in self.elements:
            self._style(text)
        else:
            self._no_address(text)

    def _style(self, text: str) -> None:
        self._no_address(text)
        for function in re.findall(r"([\w-]+)\(", text.lower()):
            if function not in CSS_FUNCTIONS:
                self._refuse(f"style {shown(text)}")

    def _no_address(self, text: str) -> None:
        plain = "".join(text.lower().split())
        if "@import" in plain or "\\" in plain or "url(" in plain.replace("url(#", ""):
            self._refuse(f"style {shown(text)}")
