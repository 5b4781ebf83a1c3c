"""A page, parsed."""

from __future__ import annotations

from html.parser import HTMLParser

INLINE = {"b", "i", "em", "span", "code"}
VOID = {"meta", "input", "br", "hr", "img", "link"}


class Page(HTMLParser):
    """Checks that tags are balanced, and collects what a test asks about."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.links, self.tags, self.scripts = [], [], [], [], []
        self.events, self.words, self.script_type = [], [], None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.words.append("" if tag in INLINE else " ")
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            elif name in ("src", "href", "action", "xlink:href", "data", "srcset", "poster"):
                self.links.append(value)
            elif name.startswith("on"):
                self.events.append(name)
        if tag == "script":
            self.script_type = dict(attrs).get("type")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        self.words.append("" if tag in INLINE else " ")

    def handle_data(self, data):
        if self.open[-1:] != ["script"]:
            self.words.append(data)
        elif self.script_type is None:
            self.scripts.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).split())
