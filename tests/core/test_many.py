"""animate-many: tables, characters, formats, groups, what is made again and what is not. Killing and Ray are tested in
files of their own. The network is a tiny one with random weights."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from many_lines import SPEECH, die_or_double, files, manifest, results, sound, weights
from tiny_model import tiny_checkpoint

from lsf_core import cli
from lsf_core.errors import LSFError
from lsf_core.many import plan
from lsf_core.many.helpers import Helpers
from lsf_core.many.journal import STATE, Journal, forget, held, recover
from lsf_core.many.manifest import read_manifest
from lsf_core.many.rows import COLUMNS, Job, Row, Settings


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return tiny_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture
def go(tmp_path, model):
    """Run animate-many on m.csv (or another table) of the test's folder into o/; its exit status."""

    def run(*options: str, table: str = "m.csv") -> int:
        return cli.main(["animate-many", str(tmp_path / table), "--out", str(tmp_path / "o"), "--model", model,
                         *options])

    return run


# ---------------------------------------------------------------- tables


def test_a_parquet_table_gives_the_same_takes_and_a_table_of_results_with_types(tmp_path, go):
    sound(tmp_path / "a.wav", 1.0)
    nan = float("nan")
    table = pa.table({
        "audio": ["a.wav", "a.wav", "gone.wav", None], "output": ["x", "y", "z", None],
        "fps": [24.0, nan, 30.0, nan], "seed": [3.0, nan, 1.0, nan], "language": ["de", None, "it", None],
        "take_number": [1, 2, 3, 4],
    })  # fmt: skip
    pq.write_table(table.slice(0, 3), tmp_path / "m.parquet")
    manifest(tmp_path / "m.csv", "a.wav,x,24,3", "a.wav,y,,", header="audio,output,fps,seed")
    assert go(table="m.parquet") == 1
    made = pq.read_table(tmp_path / "o" / "results.parquet")
    rows = made.to_pylist()
    assert made.column_names == list(COLUMNS)
    assert [row["status"] for row in rows] == ["done", "done", "failed"]
    assert [row["line"] for row in rows] == [1, 2, 3]
    assert [row["frames"] for row in rows] == [24, 30, None]
    assert [row["fps"] for row in rows] == [24.0, 30.0, 30.0]
    assert [row["language"] for row in rows] == ["de", "", "it"]
    assert "gone.wav" in rows[2]["message"]
    first = files(tmp_path / "o")
    assert go(table="m.csv") == 0
    assert files(tmp_path / "o") == first, "the table of the other kind tells what is there"
    assert [row["language"] for row in results(tmp_path / "o")] == ["", ""]


def test_the_kind_of_the_results_can_be_chosen(tmp_path, go):
    sound(tmp_path / "a.wav", 0.5)
    manifest(tmp_path / "m.csv", "a.wav,x")
    assert go("--results", "parquet") == 0
    assert sorted(os.listdir(tmp_path / "o")) == ["results.parquet", "x.npz"]


def test_a_parquet_file_that_is_none_is_refused(tmp_path, capsys, go):
    (tmp_path / "m.parquet").write_text("audio,output\n")
    assert go(table="m.parquet") == 2
    assert "not a Parquet file" in capsys.readouterr().err


@pytest.mark.parametrize(("missing", "options", "cure"), [
    ("pyarrow.parquet", ["--results", "parquet"], "pip install pyarrow"),
    ("ray.data", ["--ray", "auto"], "pip install ray[data]"),
])  # fmt: skip
def test_what_is_not_installed_is_named_with_its_cure(tmp_path, capsys, monkeypatch, go, missing, options, cure):
    sound(tmp_path / "a.wav", 0.5)
    manifest(tmp_path / "m.csv", "a.wav,x")
    monkeypatch.setitem(sys.modules, missing, None)
    assert go(*options) == 2
    text = capsys.readouterr().err
    assert cure in text
    assert sys.executable in text


# ---------------------------------------------------------------- characters


def test_characters_stand_for_meshes_beside_their_own_table(tmp_path):
    (tmp_path / "cast").mkdir()
    (tmp_path / "cast" / "anna.obj").touch()
    characters = tmp_path / "cast" / "cast.csv"
    manifest(characters, "Anna,anna.obj", "Bo,/heads/bo.npz", header="character,mesh")
    table = manifest(tmp_path / "m.csv", "a.wav,1,Anna,", "a.wav,2,Bo,", "a.wav,3,Anna,own.obj", "a.wav,4,Cy,",
                     "a.wav,5,,", header="audio,output,character,mesh")
    rows = read_manifest(Path(table), Settings(characters=str(characters)))
    assert [row.mesh for row in rows] == [str(tmp_path / "cast" / "anna.obj"), "/heads/bo.npz", "own.obj", "", ""]
    assert [row.character for row in rows] == ["Anna", "Bo", "Anna", "Cy", ""]
    assert [row.status for row in rows] == ["waiting"] * 3 + ["failed", "waiting"]
    assert "no 'Cy'" in rows[3].message
    rows = read_manifest(Path(table), Settings())
    assert [row.status for row in rows] == ["failed", "failed", "waiting", "failed", "waiting"]
    assert "--characters" in rows[0].message


@pytest.mark.parametrize(("lines", "words"), [
    (["Anna,a.obj", "Anna,b.obj"], "'Anna' twice"), (["Anna,"], "lacks a name or a mesh"), ([], None),
])  # fmt: skip
def test_a_table_of_characters_that_cannot_be_used_is_refused(tmp_path, lines, words):
    characters = manifest(tmp_path / "c.csv", *lines, header="character,mesh" if words else "name,mesh")
    table = manifest(tmp_path / "m.csv", "a.wav,1")
    with pytest.raises(LSFError, match=words or "no column character"):
        read_manifest(Path(table), Settings(characters=characters))


def test_a_face_is_read_once_for_all_lines_that_name_it(tmp_path, monkeypatch, go):
    read = []

    def face(mesh: Path) -> np.ndarray:
        read.append(mesh.name)
        if mesh.name == "cube.obj":
            raise LSFError("That is no face.")
        return np.random.default_rng(ord(mesh.name[0])).normal(0, 10, 32).astype(np.float32)

    monkeypatch.setattr("lsf_core.many.maker.read_face", face)
    monkeypatch.setattr(plan, "GROUP_LINES", 2)
    sound(tmp_path / "a.wav", 0.5)
    for name in ("a.obj", "b.obj", "cube.obj"):
        (tmp_path / name).touch()
    manifest(tmp_path / "m.csv", *(f"a.wav,{i},{'ab'[i % 2]}.obj" for i in range(6)), "a.wav,6,cube.obj", "a.wav,7,",
             header="audio,output,mesh")
    assert go() == 1
    assert sorted(read) == ["a.obj", "b.obj", "cube.obj"]
    assert [row["status"] for row in results(tmp_path / "o")] == ["done"] * 6 + ["failed", "done"]
    takes = [weights(tmp_path / "o" / f"{i}.npz") for i in (0, 2, 1, 7)]
    assert np.allclose(takes[0], takes[1], atol=1e-5)
    assert not np.allclose(takes[0], takes[2], atol=1e-4)
    assert not np.allclose(takes[0], takes[3], atol=1e-4)


# ---------------------------------------------------------------- settings of a line, formats


def test_a_line_has_an_emotional_strength_of_its_own(tmp_path, model, go):
    sound(tmp_path / "a.wav", 1.0)
    manifest(tmp_path / "m.csv", "a.wav,x,2", "a.wav,y,", "a.wav,z,3", "a.wav,w,much",
             header="audio,output,emotion_strength")
    assert go("--emotion-strength", "0.5") == 1
    for name, strength in (("x", "2"), ("y", "0.5")):
        alone = tmp_path / "alone.npz"
        command = ["animate", str(tmp_path / "a.wav"), "--out", str(alone), "--model", model]
        assert cli.main([*command, "--emotion-strength", strength]) == 0
        assert weights(tmp_path / "o" / f"{name}.npz") == pytest.approx(weights(alone), abs=1e-5)
    rows = results(tmp_path / "o")
    assert [row["emotion_strength"] for row in rows[:2]] == ["2", "0.5"]
    assert "3" in rows[2]["message"]
    assert "'much' is not a number" in rows[3]["message"]


def test_the_suffix_of_an_output_or_else_the_option_decides_its_format(tmp_path, go):
    sound(tmp_path / "a.wav", 1.0)
    manifest(tmp_path / "m.csv", "a.wav,x.npz", "a.wav,y", "a.wav,z.CSV", "a.wav,v.2")
    assert go("--format", "csv", "--fps", "24") == 0
    out = tmp_path / "o"
    assert sorted(os.listdir(out)) == ["results.csv", "v.2.csv", "x.npz", "y.csv", "z.CSV"]
    with open(out / "y.csv", encoding="ascii", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    jaw = weights(out / "x.npz")[:, 24]
    assert [float(row["JawOpen"]) for row in rows] == pytest.approx(jaw, abs=1e-5)
    assert (out / "y.csv").read_bytes() == (out / "z.CSV").read_bytes()


@pytest.mark.parametrize("output", ["results.csv", "Results.CSV", f"{STATE}/x"])
def test_an_output_cannot_take_the_place_of_the_runs_own_files(tmp_path, output):
    table = manifest(tmp_path / "m.csv", f"a.wav,{output}")
    (row,) = read_manifest(Path(table), Settings())
    assert row.status == "failed"
    assert "that the run itself keeps" in row.message


# ---------------------------------------------------------------- groups


def test_groups_hold_lines_of_about_one_length_and_no_more_than_fits():
    random = np.random.default_rng(0)
    seconds = [*random.gamma(2, 3, 1000).tolist(), 4000.0, 0.0]
    rows = [Row(line=str(i)) for i in range(len(seconds))]
    made = plan.groups(rows, seconds)
    assert sorted(int(row.line) for group in made for row in group) == list(range(len(seconds)))
    lengths = [[seconds[int(row.line)] for row in group] for group in made]
    assert lengths[0] == [4000.0]
    for group in lengths[1:]:
        assert len(group) <= plan.GROUP_LINES
        assert sum(group) <= plan.GROUP_SECONDS
    padded = sum(max(group) * len(group) for group in lengths)
    assert padded < 1.1 * sum(seconds), "were they padded to the longest of their group, a tenth at most is wasted"
    assert len(lengths) < 1.3 * max(sum(seconds) / plan.GROUP_SECONDS, len(rows) / plan.GROUP_LINES)


def test_lengths_come_from_headers_and_a_file_without_one_is_guessed(tmp_path):
    sound(tmp_path / "a.wav", 1.5)
    (tmp_path / "no sound.bin").write_bytes(bytes(32_000))
    names = ["a.wav", str(SPEECH), "no sound.bin", "gone.wav"]
    found = plan.lengths([Row(audio=name) for name in names], (tmp_path,))
    assert found == pytest.approx([1.5, 7.7, 2.0, 0.0], abs=0.2)


# ---------------------------------------------------------------- what is made again


def test_a_sound_that_was_recorded_again_is_animated_again_and_a_copy_is_not(tmp_path, capsys, go):
    for name in ("a", "b", "c"):
        sound(tmp_path / f"{name}.wav", 0.5)
    manifest(tmp_path / "m.csv", "a.wav,a", "b.wav,b", "c.wav,c")
    assert go() == 0
    first = files(tmp_path / "o")
    sound(tmp_path / "a.wav", 0.5, begin=2.0)
    os.utime(tmp_path / "b.wav", (1, 1))
    (tmp_path / "c.wav").unlink()
    capsys.readouterr()
    assert go() == 0
    assert "1 made, 2 were there" in capsys.readouterr().out
    second = files(tmp_path / "o")
    assert second["a.npz"] != first["a.npz"]
    assert {second["b.npz"], second["c.npz"]} == {first["b.npz"], first["c.npz"]}


def test_another_checkpoint_makes_other_takes_and_the_same_one_elsewhere_does_not(tmp_path, capsys, model, go):
    sound(tmp_path / "a.wav", 0.5)
    manifest(tmp_path / "m.csv", "a.wav,a")
    assert go() == 0
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / Path(model).name
    for suffix in ("", ".sha256"):
        Path(f"{copy}{suffix}").write_bytes(Path(f"{model}{suffix}").read_bytes())
    assert go("--model", str(copy)) == 0
    assert "0 made, 1 were there" in capsys.readouterr().out
    assert go("--model", str(tmp_path / "none.safetensors")) == 2


def test_a_file_that_no_table_knows_is_kept_and_told(tmp_path, capsys, go):
    sound(tmp_path / "a.wav", 0.5)
    manifest(tmp_path / "m.csv", "a.wav,a")
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "a.npz").write_bytes(b"by hand")
    for _ in range(2):
        assert go() == 0
        assert "0 made, 1 were there" in capsys.readouterr().out
        (row,) = results(tmp_path / "o")
        assert "no table tells" in row["message"]
    assert go("--overwrite") == 0
    assert len(weights(tmp_path / "o" / "a.npz")) == 15
    assert results(tmp_path / "o")[0]["message"] == ""


def test_two_runs_into_one_folder_are_refused_and_a_dead_one_does_not_hold_it(tmp_path, capsys, go):
    sound(tmp_path / "a.wav", 0.5)
    manifest(tmp_path / "m.csv", "a.wav,a")
    with held(tmp_path / "o"):
        assert go() == 2
        assert "Another run is writing" in capsys.readouterr().err
    assert go() == 0
    assert sorted(os.listdir(tmp_path / "o")) == ["a.npz", "results.csv"]


# ---------------------------------------------------------------- the journal


def entered(out: Path, output: str, *, place: bool, aside: bool) -> None:
    """What a process leaves that died after entering a take, before or after it was brought to its place."""
    journal = Journal(out, "work")
    path = journal.aside(output)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"take")
    journal.enter([Row(line="2", output=output, status="done", frames="5")])
    if aside:
        (out / output).rename(path)
    elif not place:
        (out / output).unlink()


def test_a_take_that_was_entered_is_brought_to_its_place_and_others_are_not_trusted(tmp_path):
    with held(tmp_path):
        entered(tmp_path, "deep/aside.npz", place=False, aside=True)
        entered(tmp_path, "placed.npz", place=True, aside=False)
        entered(tmp_path, "deleted.npz", place=False, aside=False)
        written = Journal(tmp_path, "work").aside("not entered.npz")
        written.parent.mkdir()
        written.write_bytes(b"half a ta")
        torn = next((tmp_path / STATE).glob("*.journal"))
        with open(torn, "a", encoding="utf-8") as file:
            file.write('{"row": "{\\"line\\": \\"7')
        for _ in range(2):  # dying in the middle of this changes nothing
            found = recover(tmp_path)
            assert sorted(row.output for row in found.done) == ["deep/aside.npz", "placed.npz"]
            assert found.attempts == 4
        assert (tmp_path / "deep" / "aside.npz").read_bytes() == b"take"
        forget(tmp_path)
        assert recover(tmp_path).done == []
    assert sorted(os.listdir(tmp_path)) == ["deep", "placed.npz"]


def test_journals_of_one_work_are_not_those_of_another(tmp_path):
    (tmp_path / STATE).mkdir()
    for name in ("parcel1", "parcel10"):
        Journal(tmp_path, name).begin(name)
    assert recover(tmp_path, "parcel1").begun == {"parcel1": 1}


# ---------------------------------------------------------------- processes that die


def test_a_line_at_which_the_process_dies_again_and_again_is_left_out(tmp_path, model):
    from lsf_core.many.maker import Maker

    sound(tmp_path / "a.wav", 0.5)
    out = tmp_path / "o"
    (out / STATE).mkdir(parents=True)
    rows = [Row(line=str(i), audio="a.wav", output=f"{i}.npz", fps="30", seed="0", emotion_strength="1")
            for i in range(4)]
    for _ in range(2):  # two attempts at all lines together, two with line 1 alone: each the end of a process
        Journal(out, "parcel")
        Journal(out, "parcel").begin("1")
    with Maker(Job((tmp_path,), out, Settings(model=model))) as maker:
        made = {row.line: row for row in maker.make([rows], "parcel")}
    assert {line: row.status for line, row in made.items()} == {"0": "done", "1": "failed", "2": "done", "3": "done"}
    assert "died each time" in made["1"].message
    assert recover(out, "parcel").begun == {"0": 1, "1": 2, "2": 1, "3": 1}


def test_a_helper_process_that_dies_costs_its_own_line_alone(tmp_path):
    with Helpers(1, threads=0) as helpers:
        tasks = [helpers.start(die_or_double, number, str(tmp_path)) for number in (5, 1, 6, 7)]
        assert [task.result() for task in tasks] == [10, 2, 12, 14]
        bad, good = (helpers.start(die_or_double, number, str(tmp_path)) for number in (0, 8))
        with pytest.raises(LSFError, match="died 3 times"):
            bad.result()
        assert good.result() == 16




def test_takes_come_out_the_same_from_helper_processes(tmp_path, model):
    from lsf_core.many.maker import Maker

    (tmp_path / STATE).mkdir()
    sound(tmp_path / "a.wav", 1.0)
    for processes in (0, 1):
        row = Row(line="2", audio="a.wav", output=f"{processes}.npz", fps="30", seed="0", emotion_strength="1")
        with Maker(Job((tmp_path,), tmp_path, Settings(model=model)), processes=processes) as maker:
            (made,) = maker.make([[row]], f"work{processes}")
        assert made.status == "done", made.message
        assert made.frames == "30"
    assert np.array_equal(weights(tmp_path / "0.npz"), weights(tmp_path / "1.npz"))
