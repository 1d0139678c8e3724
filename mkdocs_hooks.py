"""Hooks of mkdocs: what pages of docs/ link to elsewhere in the repository is on the site too."""

import re
from pathlib import Path, PurePosixPath

from mkdocs.structure.files import File

ROOT = Path(__file__).parent
_LINK = re.compile(r"(\]\()(\.\./[^)#\s]+)")


def _target(page: str, link: str) -> str | None:
    """The path in the repository that ``link`` on the page docs/``page`` leads to, where it leaves docs/; else None."""
    path = (ROOT / "docs" / PurePosixPath(page).parent / link).resolve()
    inside = path.is_relative_to(ROOT / "docs") or not path.is_relative_to(ROOT)
    return None if inside else path.relative_to(ROOT).as_posix()


def on_files(files, config):
    """Add every file outside docs/ that a page links to, under its path in the repository."""
    linked = set()
    for page in files.documentation_pages():
        text = Path(page.abs_src_path).read_text(encoding="utf-8")
        linked |= {_target(page.src_uri, link) for _, link in _LINK.findall(text)}
    for path in sorted(linked - {None}):
        if (ROOT / path).is_file():
            files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links that leave docs/ lead to the copy on the site."""
    depth = len(PurePosixPath(page.file.src_uri).parts) - 1

    def moved(match: re.Match) -> str:
        path = _target(page.file.src_uri, match[2])
        return match[0] if path is None else f"{match[1]}{'../' * depth}{path}"

    return _LINK.sub(moved, markdown)
