"""What a built site holds, read from its HTML."""

from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """Names in a page that links may lead to, its links, and its pictures with their texts."""

    def __init__(self, path):
        super().__init__()
        self.path, self.ids, self.links, self.loads, self.pictures = path, set(), [], [], []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in ("script", "img", "link"):
            self.loads += [given[name] for name in ("src", "href") if name in given]
        if tag == "img":
            self.pictures.append((given["src"], given.get("alt")))


def pages(folder):
    """Each page of a site by its path; what lies in _static are the theme's templates."""
    paths = [path for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts]
    return {path.resolve(): Page(path) for path in paths}


def broken(site):
    """Links of the pages to files or places that are not there."""
    found = []
    for page in site.values():
        for link in page.links + page.loads:
            scheme, host, path, _, place = urlsplit(link)
            if scheme or host:
                continue
            target = (page.path.parent / unquote(path)).resolve() if path else page.path.resolve()
            whole = target.exists() and (
                not place or target not in site or unquote(place) in site[target].ids
            )
            if not whole:
                found.append(f"{page.path.name}: {link}")
    return found
