"""What every page must be: closed, escaped, and with nothing from outside."""

from __future__ import annotations

from html.parser import HTMLParser


class Checker(HTMLParser):
    """Sees that every element is closed, and remembers where things would be fetched from."""

    VOID = frozenset({"meta", "img", "br", "hr", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.faults: list[str] = []
        self.seen: set[str] = set()
        self.handlers: list[str] = []
        self.text: list[str] = []
        self.pictures = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.pictures += tag == "img"
        self.sources += [str(v) for k, v in attrs if k in {"src", "href", "xlink:href"}]
        self.handlers += [k for k, _ in attrs if k.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def checked(text: str) -> Checker:
    """What was seen in a page, after the checks that every page must pass."""
    checker = Checker()
    checker.feed(text)
    assert [] == checker.faults
    assert [] == checker.open
    # nothing comes from outside: pictures are data, references point into the page
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in checker.sources)
    assert not {"script", "link", "iframe", "object", "base"} & checker.seen
    assert [] == checker.handlers
    assert "url(http" not in text
    assert "default-src 'none'" in text
    return checker
