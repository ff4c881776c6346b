"""A page as a browser would take it, without one."""

from html.parser import HTMLParser


class Reader(HTMLParser):
    """Elements, attributes and text of a page, as a browser would take them."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(page)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data):
        self.texts.append(data)
