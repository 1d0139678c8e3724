"""A folder that is replaced is whole, whenever the program that replaces it is killed."""

import shutil
from pathlib import Path

import pytest

from training.folder_swap import partial_of, put_in_place, replacing, settle


class Killed(BaseException):
    """Stands for the end of the process."""


def write(folder, text):
    folder.mkdir(exist_ok=True)
    for name in ("weights", "record"):
        (folder / name).write_text(text)


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.fault("F24")
@pytest.mark.parametrize(("moment", "left"), [(0, "old"), (1, "new"), (2, "new"), (3, "new")])
def test_killed_before_any_move_the_next_start_finds_one_whole_folder(tmp_path, monkeypatch, moment, left):
    folder, moves = tmp_path / "best", []
    write(folder, "old")
    (folder / "notes").write_text("somebody else's")
    write(partial_of(folder), "new")

    def killing(move):
        def moved(*args, **settings):
            if len(moves) == moment:
                raise Killed
            moves.append(args)
            return move(*args, **settings)

        return moved

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killing(Path.rename))
        patch.setattr(shutil, "rmtree", killing(shutil.rmtree))
        with pytest.raises(Killed):
            put_in_place(partial_of(folder), folder)
    settle(folder)
    assert contents(folder) == {"weights": left, "record": left, "notes": "somebody else's"}
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_on_another_disk_is_replaced_there(tmp_path):
    folder, place = tmp_path / "run" / "best", tmp_path / "disk" / "best"
    for parent in (folder.parent, place.parent):
        parent.mkdir()
    write(place, "old")
    folder.symlink_to(place)
    for text in ("new", "newer"):
        with replacing(folder) as new:
            write(new, text)
        assert folder.is_symlink() and contents(place) == {"weights": text, "record": text}
    assert list(folder.parent.iterdir()) == [folder] and list(place.parent.iterdir()) == [place]


def test_what_is_raised_in_a_save_leaves_the_folder_as_it_was(tmp_path):
    folder = tmp_path / "best"
    write(folder, "old")
    with pytest.raises(OSError, match="disk"), replacing(folder) as new:
        write(new, "new")
        raise OSError("the disk is full")
    assert contents(folder) == {"weights": "old", "record": "old"} and list(tmp_path.iterdir()) == [folder]


def test_a_save_that_was_killed_leaves_nothing_to_the_next_one(tmp_path):
    folder = tmp_path / "best"
    partial_of(folder).mkdir()
    (partial_of(folder) / "of the killed one").touch()
    with replacing(folder) as new:
        write(new, "new")
    assert contents(folder) == {"weights": "new", "record": "new"} and list(tmp_path.iterdir()) == [folder]
