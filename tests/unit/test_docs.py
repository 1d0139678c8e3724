"""Links and pictures of every page lead somewhere; pages are reached from the README and stand in the site's menu."""

import re

import pytest
import yaml

from tests.processes import ROOT

FOLDERS = ("docs", "assets", "notebooks")
PAGES = [*sorted(ROOT.glob("*.md")), *(page for name in FOLDERS for page in sorted((ROOT / name).rglob("*.md")))]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def links_of(page):
    """Local targets of a page's links, without anchors."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target.split("#")[0] for target in LINK.findall(text) if not re.match(r"https?:|mailto:", target)]
    return [(page.parent / target).resolve() for target in targets if target]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_is_dead(page):
    assert [str(target) for target in links_of(page) if not target.exists()] == []


def test_every_page_is_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached and page.suffix == ".md" and page.exists():
            reached.add(page)
            waiting += links_of(page)
    unreached = {page for page in PAGES if page.parent.name in ("docs", "methods")} - reached
    assert sorted(str(page.relative_to(ROOT)) for page in unreached) == []


def test_every_page_of_docs_stands_once_in_the_menu_of_the_site():
    menu = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = [page for item in menu for page in ([item] if isinstance(item, str) else sum(item.values(), []))]
    assert sorted(listed) == sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md"))
