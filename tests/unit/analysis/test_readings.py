"""A page whose tables have changed is read again: which tables its prose speaks of, and what is kept of them."""

from pathlib import Path

from analysis import results
from analysis.readings import sections, tables_spoken_of, to_read, told_without_record
from analysis.results import READ, ROOT, Results
from tests.unit.analysis.test_results import folders, root  # noqa: F401

PAGE, OTHER, CARD = Path("/docs/page.md"), Path("/docs/other.md"), Path("/docs/methods/card.md")
REPORT = Path("/benchmarks/results/speed.md")


def block(what, table="| 1 |"):
    return f"<!-- results: {what} -->\n{table}\n<!-- end of results -->\n"


def spoken_of(page, text):
    """Names of the tables that the page speaks of, beside another page and a report."""
    pages = {OTHER: f"# Other\n{block('a table')}\n## Costs\n### Deep\n{block('b table')}\n## Rest\n{block('c table')}"}
    tables = tables_spoken_of(pages | {page: text}, {REPORT: "| 2 |"})
    return sorted(tables.get(page, {}))


def test_prose_speaks_of_the_tables_of_its_section_and_of_what_it_links_to():
    assert spoken_of(PAGE, f"# Page\nGains 3 points.\n{block('toy table')}") == ["toy table"]
    assert spoken_of(PAGE, f"# Page\n{block('toy table')}\n## More\n3 points.\n") == []
    assert spoken_of(PAGE, f"# Page\nGains some.\n{block('toy table')}") == [], "no number that could go stale"
    assert spoken_of(PAGE, "# Page\n3 points ([o](other.md)).\n") == ["a table", "b table", "c table"]
    assert spoken_of(PAGE, "# Page\n3 ([o](other.md#costs)), [x](other.md#none), [y](no.md).\n") == ["b table"]
    assert spoken_of(CARD, "# Card\n3 ([r](../../benchmarks/results/speed.md), [o](../other.md#rest)).\n") == [
        "c table",
        "speed.md",
    ]
    assert spoken_of(PAGE, f"# Page\n3 ([here](#below)).\n## Below\n{block('toy table')}") == ["toy table"]
    assert spoken_of(PAGE, "# Page\n3 pages.\n| [o](other.md) | 3 |\n") == [], "a row of links is an index"


def test_a_heading_in_a_fence_begins_no_section():
    text = "# Page\n```bash\n# a comment\n```\n## Known truth: a & b\nText\n"
    assert [(part.title, part.level, part.anchor) for part in sections(text)] == [
        ("Page", 1, "page"),
        ("Known truth: a & b", 2, "known-truth-a--b"),
    ]
    assert "".join(part.text for part in sections(text)) == text
    assert [(part.title, part.text) for part in sections("No heading.\n")] == [("", "No heading.\n")]
    assert [(part.title, part.text) for part in sections("Before.\n# Page\n")] == [
        ("", "Before.\n"),
        ("Page", "# Page\n"),
    ]


def test_a_page_is_to_be_read_where_a_table_is_new_or_another():
    now = {"a.md": {"x": "1", "y": "2"}, "b.md": {"x": "1"}}
    assert to_read(now, now | {"gone.md": {"x": "1"}}) == {}
    assert to_read(now, {"a.md": {"x": "1", "y": "3", "z": "4"}}) == {"a.md": ["y"], "b.md": ["x"]}


def test_what_has_no_record_is_listed_with_its_page():
    marked = "<!-- no record: a log -->\n7 %\n\n- <!-- no record: a profile -->8 %\n"
    pages = {
        PAGE: marked,
        CARD: "<!-- no record: a try -->",
        OTHER: "",
        Path("/README.md"): "<!-- no record: a day -->",
    }
    assert told_without_record(pages, Path("/docs")).splitlines()[2:] == [
        "| [page](page.md) | a log; a profile |",
        "| [card](methods/card.md) | a try |",
        "| [README](../README.md) | a day |",
    ]


def test_new_records_name_the_page_to_read_until_it_is_read(root, monkeypatch, capsys):  # noqa: F811
    page = root / "docs" / "page.md"
    page.write_text(f"# Page\nGains 3 points.\n{block('toy table')}")

    def ended(*arguments):
        monkeypatch.setattr("sys.argv", ["results", *arguments])
        try:
            results.main()
        except results.UserError as error:
            return str(error), capsys.readouterr().out
        return "", capsys.readouterr().out

    monkeypatch.setattr(results, "ROOT", root)
    error, out = ended()
    assert "have changed; read what they say of them" in error and "docs/page.md: toy table\n" in out
    assert ended("--read") == ("", "") and (root / READ).is_file()
    assert ended("--check") == ("", "")
    page.write_text(page.read_text().replace("3 points", "4 points"))
    assert ended("--check") == ("", ""), "prose may be written anew"
    (root / "results" / "toy" / "no_seed1.json").unlink()
    assert "run make results" in ended("--read")[0], "of blocks that are stale nothing is kept"
    error, out = ended()
    assert "have changed" in error and "docs/page.md: toy table\n" in out


def test_the_pages_of_the_project_were_read_against_their_tables():
    assert Results(ROOT).to_read() == []
