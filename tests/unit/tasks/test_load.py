"""Loading rows from files, folders and hub names, and what a person is told when they cannot be loaded."""

import json

import datasets
import pytest
from datasets import Dataset

from common.errors import UserError
from tasks.countdown.problems import load_countdown
from tasks.load import cache_folder, folder_file, load_rows, require_columns
from tasks.sql.problems import load_sql


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def jsonl(tmp_path):
    def write(rows, name="rows.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


def test_jsonl_and_parquet_give_the_same_rows(jsonl, tmp_path):
    rows = [{"numbers": [1, 2], "target": 3}, {"numbers": [4, 5, 6], "target": 7}]
    Dataset.from_list(rows).to_parquet(str(tmp_path / "rows.parquet"))
    assert load_rows(jsonl(rows)).to_list() == load_rows(tmp_path / "rows.parquet").to_list() == rows


def test_a_cache_that_cannot_be_written_is_said_once(jsonl, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file" / "cache")
    cache_folder.cache_clear()
    for number in (1, 2):
        assert load_rows(jsonl([{"a": number}], f"{number}.jsonl"))["a"][0] == number
    cache_folder.cache_clear()
    assert [record.getMessage().count("set HF_DATASETS_CACHE") for record in caplog.records] == [1]


@pytest.mark.parametrize(("name", "mark"), [("rows.csv", ","), ("ROWS.TSV", "\t")])
def test_cells_of_csv_and_tsv_files_are_the_texts_that_stand_there(name, mark, tmp_path):
    path = tmp_path / name
    cells = [["question", "answer"], ['"How many, then?"', "007"], ['"two\nlines"', '"1,080.50"'], ["none", ""]]
    path.write_text("\n".join(mark.join(row) for row in cells) + "\n", encoding="utf-8")
    rows = load_rows(path).to_list()
    assert [row["question"] for row in rows] == ["How many, then?", "two\nlines", "none"]
    assert [row["answer"] for row in rows] == ["007", "1,080.50", ""]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_json_in_another_encoding_is_refused_before_a_row_is_read(encoding, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"question": "Ärger?", "answer": "1"}\n'.encode(encoding))
    with pytest.raises(UserError, match="rows.jsonl' cannot be read as rows .* encoding .UTF-8"):
        load_rows(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.jsonl", "null\n"),
        ("rows.jsonl", '\ufeff\n null\n{"a": 1}\n'),
        ("rows.json", '[\n  null,\n  {"a": 1}]'),
        ("rows.jsonl", '{"a": 1}\n\nnull\n'),
        ("rows.json", '"a"'),
        ("folder/train.jsonl", "null\n"),
    ],
)
def test_json_whose_rows_begin_with_null_is_refused_before_it_ends_the_process(name, text, tmp_path, monkeypatch):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr("tasks.load.load_dataset", lambda **arguments: pytest.fail("the library would read it"))
    with pytest.raises(UserError, match=r"cannot be read as rows .line \d is .*check its contents"):
        load_rows(tmp_path / "folder" if "/" in name else path)


def test_json_lists_and_marks_of_utf_8_are_read(tmp_path):
    for text in ('[\n{"a": 1}\n]', '\ufeff{"a": 1}\n', '\n [{"a": 1}]'):
        (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
        assert load_rows(tmp_path / "rows.jsonl")["a"][:] == [1]


def test_a_folder_of_csv_files_is_refused_with_a_file_of_it(tmp_path):
    (tmp_path / "train.csv").write_text("question,answer\na,1\n")
    with pytest.raises(UserError, match="folder of .csv files; give the file itself, such as .*train.csv"):
        load_rows(tmp_path)


def test_countdown_problems_of_a_csv_file_are_those_of_jsonl(jsonl, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('numbers,target\n"[3, 5, 8]",24\n4 7,28\n"1,2", 3\n', encoding="utf-8")
    rows = [{"numbers": [3, 5, 8], "target": 24}, {"numbers": [4, 7], "target": 28}, {"numbers": [1, 2], "target": 3}]
    assert load_countdown(path).to_list() == load_countdown(jsonl(rows)).to_list() == rows
    path.write_text('numbers,target\n3 5,"24, 25"\n', encoding="utf-8")
    with pytest.raises(UserError, match="row 0 .*target='24, 25'; it must be an integer"):
        load_countdown(path)
    path.write_text(f"numbers,target\n3 5,{'9' * 5000}\n", encoding="utf-8")
    with pytest.raises(UserError, match="row 0 .*target='999.*it must be an integer"):
        load_countdown(path)
    path.write_bytes("numbers,target\n3 5,24\n".encode("utf-16"))
    with pytest.raises(UserError, match="cannot be read as rows.*UTF-8"):
        load_countdown(path)
    path.write_text('numbers,target\n"[3, -5]",24\n', encoding="utf-8")
    with pytest.raises(UserError, match="row 0 .*must be a list of integers >= 0"):
        load_countdown(path)


def test_a_row_with_more_cells_than_columns_is_named_and_none_is_dropped(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("question,answer\n1 + 1?,2\nTom has 3, Ann 4. Sum?,7\n", encoding="utf-8")
    with pytest.raises(UserError, match="has 2 columns, and in line 3 a row of 3 cells .'Tom has 3, Ann 4"):
        load_rows(path)


def test_signs_of_patterns_in_a_name_stand_for_themselves(jsonl):
    jsonl([{"a": 1}], "z1.jsonl")
    assert load_rows(jsonl([{"a": 2}], "z[1].jsonl"))["a"][:] == [2]
    assert load_rows(jsonl([{"a": 3}], "z*.jsonl"))["a"][:] == [3]


def test_folder_gives_its_train_split_unless_another_is_asked_for(jsonl, tmp_path):
    jsonl([{"a": 1}, {"a": 2}], "folder/train.jsonl")
    jsonl([{"a": 3}], "folder/test.jsonl")
    folder = tmp_path / "folder"
    assert load_rows(str(folder))["a"][:] == [1, 2]
    assert load_rows(folder, "test")["a"][:] == [3]
    assert load_rows(folder, "train[:1]")["a"][:] == [1]
    with pytest.raises(UserError, match=r"dev.*train.*test"):
        load_rows(folder, "dev")


def test_folder_with_one_split_gives_it_and_with_several_but_no_train_asks(jsonl, tmp_path):
    jsonl([{"a": 3}], "folder/test.jsonl")
    assert load_rows(tmp_path / "folder")["a"][:] == [3]
    jsonl([{"a": 4}], "folder/validation.jsonl")
    with pytest.raises(UserError, match="validation.*no 'train'"):
        load_rows(tmp_path / "folder")


@pytest.mark.parametrize("source", ["no_such.jsonl", "./no_such_folder", "no_such.parquet"])
def test_missing_file_is_told_with_both_fixes(source):
    with pytest.raises(UserError, match=f"{source}.*check the path.*hub"):
        load_rows(source)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Couldn't reach 'owner/set' on the Hub"),
        datasets.exceptions.DatasetNotFoundError("Dataset 'owner/set' doesn't exist"),
    ],
)
def test_unreachable_hub_is_told_with_both_fixes(monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("tasks.load.load_dataset", fail)
    with pytest.raises(UserError, match=r"owner/set.*path of a jsonl, parquet or csv file.*connection"):
        load_rows("owner/set")


def test_hub_name_config_and_split_reach_the_library(monkeypatch):
    asked = {}

    def load(path, **kwargs):
        asked.update(path=path, **kwargs)
        return Dataset.from_list([{"a": 1}])

    monkeypatch.setattr("tasks.load.load_dataset", load)
    load_rows("owner/set", "test", config="main")
    assert asked == {"path": "owner/set", "name": "main", "split": "test"}


def test_hub_dataset_without_its_config_names_the_choices(monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("Config name is missing. Please pick one among the available configs: ['main', 'socratic']")

    monkeypatch.setattr("tasks.load.load_dataset", fail)
    with pytest.raises(UserError, match="owner/set.*main.*socratic"):
        load_rows("owner/set")


@pytest.mark.parametrize("content", ["", "\n\n", '{"a": 1}\n{"a":', "\0"])
def test_empty_or_broken_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match="rows.jsonl"):
        load_rows(path)


def test_broken_or_empty_parquet_and_empty_folder_are_refused(tmp_path):
    (tmp_path / "broken.parquet").write_bytes(b"not parquet")
    Dataset.from_dict({"numbers": [], "target": []}).to_parquet(str(tmp_path / "empty.parquet"))
    (tmp_path / "folder").mkdir()
    for name in ("broken.parquet", "empty.parquet", "folder"):
        with pytest.raises(UserError, match=name):
            load_rows(tmp_path / name)


def test_a_slice_without_rows_is_refused(jsonl):
    with pytest.raises(UserError, match=r"rows.jsonl.*train\[:0\]"):
        load_rows(jsonl([{"a": 1}]), "train[:0]")


def test_a_hub_dataset_without_rows_is_refused(monkeypatch):
    monkeypatch.setattr("tasks.load.load_dataset", lambda *args, **kwargs: Dataset.from_list([]))
    with pytest.raises(UserError, match="owner/set.*has no rows"):
        load_rows("owner/set")


def test_unknown_suffix_is_refused_with_the_known_ones(tmp_path):
    (tmp_path / "rows.xyz").write_text("1")
    with pytest.raises(UserError, match=r"rows\.xyz.*\.jsonl.*\.parquet"):
        load_rows(tmp_path / "rows.xyz")


def test_require_columns_names_missing_and_found_columns():
    rows = Dataset.from_list([{"question": "?", "gold": 1}])
    require_columns(rows, ["question"])
    with pytest.raises(UserError, match=r"answer; it has question, gold"):
        require_columns(rows, ["question", "answer"])
    assert require_columns(rows, [("problem", "question"), "gold"]) == ["question", "gold"]
    with pytest.raises(UserError, match="lacks the column.s. problem or prompt, answer; it has"):
        require_columns(rows, [("problem", "prompt"), "question", "answer"])


@pytest.mark.parametrize(
    ("source", "message"),
    [("~nobody_of_this_name/x.jsonl", "home directory"), ("x" * 300 + ".jsonl", "File name too long")],
)
def test_a_place_that_cannot_be_looked_for_is_refused(source, message):
    for look in (load_rows, lambda name: folder_file(name, "train"), lambda name: load_sql(name, "train")):
        with pytest.raises(UserError, match=f"'{source[:9]}.*' cannot be looked for .*{message}.*check the path"):
            look(source)


def test_rows_that_nest_too_deeply_and_columns_without_a_name_are_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": ' + "[" * 5000 + "]" * 5000 + "}\n")
    with pytest.raises(UserError, match="rows.jsonl' cannot be read as rows"):
        load_rows(path)
    path = tmp_path / "rows.csv"
    for head in (",question,answer", "question,answer,question"):
        path.write_text(f"{head}\n0,q,1\n")
        with pytest.raises(UserError, match="has the columns .*each needs a name of its own"):
            load_rows(path)


@pytest.mark.parametrize("column", ["nums", "numbers"])
def test_countdown_takes_tinyzero_and_own_columns(jsonl, column):
    path = jsonl([{column: [8, 3], "target": 24, "solution": "8*3"}, {column: [1, 2, 3], "target": -4, "solution": ""}])
    rows = load_countdown(path)
    assert rows.to_list() == [{"numbers": [8, 3], "target": 24}, {"numbers": [1, 2, 3], "target": -4}]


def test_countdown_keeps_the_first_of_equal_problems_and_prints_the_count(jsonl, capsys):
    path = jsonl(
        [
            {"nums": [3, 1, 2], "target": 6},
            {"nums": [1, 2, 3], "target": 6},
            {"nums": [1, 2, 3], "target": 7},
            {"nums": [1, 2, 2], "target": 6},
            {"nums": [1, 1, 2], "target": 6},
        ]
    )
    rows = load_countdown(path)
    kept = [(row["numbers"], row["target"]) for row in rows]
    assert kept == [([3, 1, 2], 6), ([1, 2, 3], 7), ([1, 2, 2], 6), ([1, 1, 2], 6)]
    assert "dropped 1 of 5" in capsys.readouterr().out


@pytest.mark.fault("F17")
@pytest.mark.parametrize(
    "bad",
    [
        {"nums": [1, 2], "target": "three"},
        {"nums": [1, 2], "target": 2.5},
        {"nums": [1, 2], "target": None},
        {"nums": [1, 2], "target": True},
        {"nums": [1, 2.5], "target": 3},
        {"nums": [1, "two"], "target": 3},
        {"nums": [1, None], "target": 3},
        {"nums": [1, -2], "target": 3},
        {"nums": [], "target": 3},
        {"nums": None, "target": 3},
        {"nums": "1 2", "target": 3},
    ],
)
def test_countdown_refuses_a_row_that_is_not_of_integers_by_its_index(jsonl, bad):
    with pytest.raises(UserError, match="row 2 "):
        load_countdown(jsonl([{"nums": [1, 2], "target": 3}, {"nums": [1, 2], "target": 1}, bad]))


def test_countdown_reads_whole_floats_as_integers(jsonl):
    row = load_countdown(jsonl([{"nums": [1.0, 2.0], "target": 3.0}]))[0]
    assert row == {"numbers": [1, 2], "target": 3}
    assert isinstance(row["target"], int)


def test_countdown_without_its_columns_names_those_found(jsonl):
    with pytest.raises(UserError, match=r"numbers.*question, target"):
        load_countdown(jsonl([{"question": "?", "target": 3}]))


def test_countdown_refuses_numbers_written_as_text(jsonl):
    with pytest.raises(UserError, match=r"row 0 .*target='3'"):
        load_countdown(jsonl([{"nums": [1, 2], "target": "3"}, {"nums": [1, 3], "target": "4"}]))
