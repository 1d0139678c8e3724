"""Links and pictures of the README and of docs/ lead somewhere, and every page is reached from the README."""

import re

import pytest

from tests.processes import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "assets").rglob("*.md"))]
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
