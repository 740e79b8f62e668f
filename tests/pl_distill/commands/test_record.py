import base64
import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest

from datamodules.images import encode_jpeg
from datamodules.pen import PenConfig, draw_pen
from pl_distill.cli import main
from pl_distill.evaluation.record_page import describe, write_associations
from pl_distill.reid.association import Association, Finding
from pl_distill.reid.daily import daily_table, own_change
from pl_distill.reid.identities import link, merge
from pl_distill.reid.longitudinal import RecordWriter, Sighting
from pl_distill.reid.pool import EmbeddingPool
from pl_distill.reid.record_files import read_hours
from pl_distill.reid.samples import Sample
from pl_distill.reid.storage import normalised
from pl_distill.reid.thumbnails import Thumbnails

NEW_YEAR = 1767225600.0  # 2026-01-01 00:00 UTC


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    options = ["--animals", "12", "--days", "60", "--cases", "4", "--walks", "0.1"]
    assert main(["record", "simulate", "--out", str(folder), *options]) == 0
    return folder


def run(*words):
    return main([str(word) for word in words])


def test_a_planted_lameness_is_found_from_files_and_told_in_words(simulated, tmp_path, capsys):
    table = simulated / "outcomes.csv"
    options = ("--permutations", "199", "--out", tmp_path)
    assert run("record", "associate", "--record", simulated, "--outcomes", table, *options) == 0
    told = capsys.readouterr().out
    assert "lameness: 4 cases among 12 animals" in told
    assert "each compared with those without it on the same day, 8 on average" in told
    assert "distance_m: -" in told
    assert "in brackets: 95 % interval of that test alone, not corrected" in told
    found = json.loads((tmp_path / "associations.json").read_text())["associations"][0]
    assert (found["kind"], found["cases"]) == ("lameness", 4)
    assert cv2.imread(str(tmp_path / "lead-lameness.png")) is not None


def test_a_kind_that_is_too_rare_is_told_and_the_others_are_tested(simulated, tmp_path, capsys):
    table = tmp_path / "outcomes.csv"
    head, *lame = (simulated / "outcomes.csv").read_text().splitlines()
    rare = [f"animal-0001,2026-02-20,{kind},1" for kind in ("disease", "reproduction")]
    table.write_text("\n".join([head, *rare, *lame]) + "\n")
    few = ("--permutations", 99, "--days_before", 1)
    words = ("record", "associate", "--record", simulated, "--outcomes", table, *few)
    assert run(*words, "--out", tmp_path) == 0
    told = capsys.readouterr().out
    assert "not tested: kind 'disease': has 1 outcomes that can be tested, among " in told
    assert "lameness: 4 cases among 12 animals" in told
    found = json.loads((tmp_path / "associations.json").read_text())["associations"]
    assert [one["kind"] for one in found] == ["lameness"]
    table.write_text("\n".join([head, *rare]) + "\n")
    assert run(*words) == 1
    captured = capsys.readouterr()
    assert "not tested: kind 'disease'" in captured.out
    assert "kind 'reproduction': has 1 outcomes" in captured.err


def test_the_page_shows_every_picture_and_needs_no_other_file(simulated, tmp_path, capsys):
    table = simulated / "outcomes.csv"
    animal = table.read_text().splitlines()[1].split(",")[0]
    pool = tmp_path / "pool"
    with EmbeddingPool(pool, "a" * 64, 8) as opened:
        rng = np.random.default_rng(0)
        vectors = normalised(rng.standard_normal((4, 8)).astype(np.float32))
        opened.append([Sample("cam", "s", n, NEW_YEAR + 86_400 * 9 * n, vector) for n, vector in enumerate(vectors)])
        link(opened, [0, 1], animal)
        link(opened, [2, 3], "other")
        merge(opened, "other", animal, "same ear tag")
    pictures = Thumbnails(pool)
    for day in range(0, 60, 10):
        picture = np.full((96, 96, 3), 4 * day, np.uint8)
        assert pictures.offer("other", NEW_YEAR + 86_400 * day, picture, 2)  # from before the merge
        assert not pictures.offer("other", NEW_YEAR + 86_400 * day + 60, picture, 2)
    out = tmp_path / "plots"
    options = ("--outcomes", table, "--pool", pool, "--animal", animal, "--out", out, "--timezone", "Asia/Tokyo")
    assert run("record", "plot", "--record", simulated, *options) == 0
    page = (out / "report.html").read_text()
    for name in ("timeline", "hours", "drift", "looks"):
        (picture,) = out.glob(f"{name}-*.png")
        image = cv2.imread(str(picture))
        assert image.std() > 5
        assert base64.b64encode(picture.read_bytes()).decode() in page
    assert list((out / "projector").rglob("sprite.png"))
    (beside,) = (out / "projector").rglob("metadata.tsv")
    assert beside.read_text().splitlines()[:2] == ["animal\ttime (Asia/Tokyo)", f"{animal}\t2026-01-01 09:00"]
    for name in ("embeddings", "lead-lameness"):
        assert base64.b64encode((out / f"{name}.png").read_bytes()).decode() in page
    assert "lameness: 4 cases among 12 animals" in page
    assert "12 animals, 1 of them below" in page
    assert "<meta name='viewport'" in page
    told = re.findall("<img alt='([^']+)'", page)
    assert len(told) == 6 == page.count("<img")
    assert all(" " in alt for alt in told)
    assert "http" not in page.split("base64")[0]


def test_a_few_days_are_drawn_with_the_farms_whole_table_by_its_own_calendar(simulated, tmp_path, capsys):
    table = tmp_path / "outcomes.csv"
    days = (
        "2026-01-20",
        *7 * ["2026-02-26"],
        "2026-02-27",
        "2026-03-02",
    )  # the last hours of the record are of the 2nd of March there
    table.write_text(
        "animal,date,kind,value\n" + "".join(f"animal-{n:04d},{day},disease,1\n" for n, day in enumerate(days, 1))
    )
    words = ("record", "plot", "--record", simulated, "--outcomes", table, "--since", "2026_02_26", "--out", tmp_path)
    assert run(*words, "--timezone", "Pacific/Auckland") == 0
    page = (tmp_path / "report.html").read_text()
    assert "2026-02-26 to 2026-03-02; times are those of Pacific/Auckland" in page
    drawn = sorted(int(one.stem[-4:]) for one in tmp_path.glob("drift-*.png"))
    assert drawn == list(range(2, 11))  # all, however many
    assert "12 animals, 9 of them below" in page
    assert run(*words) == 1
    assert "date 2026-03-02 is outside of the record" in capsys.readouterr().err


def test_a_second_herd_is_not_mixed_into_a_record(simulated, capsys):
    assert run("record", "simulate", "--out", simulated) == 1
    assert "holds a record already, expected a new folder" in capsys.readouterr().err


def test_an_effect_that_is_gone_on_the_day_itself_is_told_without_a_beginning():
    ahead = Finding("walk_percent", 1, -2.0, -3.0, -1.0, 0.001, 0.01, 4)
    found = Association("lameness", 12, 4, 0, 0.05, 1.5, [replace(ahead, lead_days=0, p_corrected=0.2), ahead])
    assert describe(found).splitlines()[-2].endswith("1 days before, p 0.010 after correction")
    always = replace(found, findings=[replace(ahead, lead_days=0), ahead])
    assert describe(always).splitlines()[-2].endswith("shown from 1 days before")


def test_who_is_not_among_the_cases_is_told():
    found = Association("lameness", 12, 4, 2, 0.05, 1.5, [], 7.6, without_past=3, sound=100)
    assert describe(found).splitlines()[:2] == [
        "lameness: 4 cases among 12 animals, each compared with those without it on the same day, 8 on average",
        "  not among them: 3 animals without a past before it; 2 further outcomes of the same animals; 100 lines of "
        "value 0, which say that there was nothing",
    ]


def test_a_sheet_of_scores_marks_and_tests_the_lame_alone(simulated, tmp_path, capsys):
    head, *lame = (simulated / "outcomes.csv").read_text().splitlines()
    sound = [f"animal-{number:04d},2026-01-{day:02d},lameness,0" for day in (5, 12, 19) for number in range(1, 13)]
    table = tmp_path / "sheet.csv"
    table.write_text("\n".join([head, *sound, *lame]) + "\n")
    assert run("record", "plot", "--record", simulated, "--outcomes", table, "--out", tmp_path / "plots") == 0
    drawn = {one.stem[-4:] for one in (tmp_path / "plots").glob("timeline-*.png")}
    assert drawn == {line.split(",")[0][-4:] for line in lame}
    page = (tmp_path / "plots" / "report.html").read_text()
    assert "lameness: 4 cases among 12 animals" in page
    assert "36 lines of value 0" in page
    table.write_text("\n".join([head, *sound]) + "\n")
    assert run("record", "associate", "--record", simulated, "--outcomes", table) == 1
    assert "has 0 outcomes that can be tested" in capsys.readouterr().err


def test_growth_of_a_whole_herd_is_told_without_an_infinite_effect(simulated, tmp_path, capsys):
    table = tmp_path / "outcomes.csv"
    lines = [f"animal-{number:04d},2026-02-20,growth,{number % 5}" for number in range(1, 13)]
    table.write_text("\n".join(["animal,date,kind,value", *lines]) + "\n")
    few = ("--permutations", 99, "--days_before", 1, "--out", tmp_path)
    assert run("record", "associate", "--record", simulated, "--outcomes", table, *few) == 0
    told = capsys.readouterr().out
    assert "growth: 12 cases among 12 animals" in told
    assert "one test alone" not in told
    found = json.loads((tmp_path / "associations.json").read_text(), parse_constant=pytest.fail)
    assert found["associations"][0]["detectable"] is None
    endless = Association("growth", 12, 12, 0, 0.05, float("inf"), [])
    with pytest.raises(ValueError, match="JSON"):
        write_associations(tmp_path / "none.json", [endless])


def test_a_question_is_answered_on_the_screen_or_in_a_file(simulated, tmp_path, capsys):
    sql = "SELECT animal, count(*) AS n FROM hours GROUP BY 1 ORDER BY 1 LIMIT 2"
    assert run("record", "query", "--record", simulated, "--sql", sql) == 0
    assert "animal-0002 1440" in capsys.readouterr().out
    assert run("record", "query", "--record", simulated, "--sql", sql, "--out", tmp_path / "n.csv") == 0
    assert (tmp_path / "n.csv").read_text() == "animal,n\nanimal-0001,1440\nanimal-0002,1440\n"
    assert run("record", "query", "--record", simulated, "--sql", sql, "--out", tmp_path / "n.parquet") == 0
    assert pd.read_parquet(tmp_path / "n.parquet").equals(pd.read_csv(tmp_path / "n.csv"))


def test_clips_of_a_pen_become_hours_at_their_time_of_day(tmp_path, capsys):
    config = PenConfig(width=320, height=180)
    draw_pen(tmp_path / "pen", config, days=["2026_01_01"], clips_per_day=2, frames_per_clip=18, seed=3)
    assert run("record", "build", "--clips", tmp_path / "pen", "--out", tmp_path / "record") == 0
    hours = read_hours(tmp_path / "record")
    assert hours["animal"].nunique() == 16  # identities of this layout count within a clip
    assert hours["animal"].str.startswith("2026_01_01/").all()
    assert {f"{hour:%Y-%m-%d %H}" for hour in hours["hour"]} == {"2026-01-01 07"}
    behaviours = [name for name in hours.columns if name in ("sleep_s", "walk_s", "eat_s", "lying_s", "standing_s")]
    assert hours[behaviours].sum().sum() > 5
    assert hours[["feeder_visits", "feeder_s", "drinker_visits", "drinker_s"]].isna().all(axis=None)  # without a --map
    before = hours["seen_s"].sum()
    assert run("record", "build", "--clips", tmp_path / "pen", "--out", tmp_path / "record") == 0
    assert read_hours(tmp_path / "record")["seen_s"].sum() == pytest.approx(before)


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("clip_minutes", 0.04, "2026_01_01/000000: lasts 0.1 minutes, expected at most --clip_minutes (0.04)"),
        ("clip_minutes", -5, "--clip_minutes: is -5"),
        ("first_hour", -3, "--first_hour: is -3"),
        ("first_hour", 24, "--first_hour: is 24"),
    ],
)
def test_clips_that_would_lie_over_each_other_or_outside_their_day_are_refused(option, value, told, tmp_path, capsys):
    """Hours would be added up twice, or fall to the day before, without a word."""
    config = PenConfig(width=96, height=64, fps=2.0)
    draw_pen(tmp_path / "pen", config, days=["2026_01_01"], clips_per_day=2, frames_per_clip=12, seed=3)
    build = ("record", "build", "--clips", tmp_path / "pen", "--out", tmp_path / "record")
    assert run(*build, f"--{option}={value}") == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "record").exists()
    assert run(*build, "--clip_minutes=0.1") == 0


def test_lame_animals_of_a_drawn_pen_walk_less_than_their_own_past_and_than_the_herd(tmp_path, monkeypatch, capsys):
    config = replace(PenConfig(), width=96, height=64, fps=1.0, straw_per_m2=0.0)
    sound, lame = [f"2026_01_{day:02d}" for day in (1, 2, 3)], [f"2026_01_{day:02d}" for day in (4, 5, 6)]
    names = {}
    for days, vigour in ((sound, None), (lame, {f"pig-{number:02d}": 0.0 for number in (1, 2, 3)})):
        for clip in draw_pen(
            tmp_path / "pen", config, days=days, clips_per_day=1, frames_per_clip=60, seed=1, vigour=vigour
        ):
            animals = json.loads((clip / "scene.json").read_text())["animals"]
            names |= {f"{clip.parent.name}/{clip.name}:{one}": animal["name"] for one, animal in animals.items()}
    scale = ("--map.pixels_per_m", config.width / config.view_width_m)
    assert run("record", "build", "--clips", tmp_path / "pen", "--out", tmp_path / "record", *scale) == 0
    hours = read_hours(tmp_path / "record")
    hours["animal"] = hours["animal"].map(names)  # labels know an animal within its clip only, the drawing for life
    monkeypatch.setattr("pl_distill.reid.daily._ENOUGH_SEEN_S", 30.0)  # a day here is a minute
    table = daily_table(hours)
    change = own_change(table.values, window=3, gap=3, baseline=3, least=3)[..., -1]  # (F, A), of the last day
    spread = change[:, 3:].std(axis=1, ddof=1)  # of the sound
    for name in ("distance_m", "walk_percent"):
        quantity = table.names.index(name)
        before, after = (table.values[quantity, :3, part].mean() for part in (slice(0, 3), slice(3, 6)))
        assert after < 0.5 * before, name
        assert change[quantity, :3].mean() < change[quantity, 3:].mean() - spread[quantity], name


def test_sequences_whose_name_is_no_number_follow_each_other(tmp_path, capsys):
    for name in ("barn3-2026-01-31-cam2", "barn3-2026-01-31-cam1", "barn3-2026-02-01-cam1"):
        folder = tmp_path / "clips" / name
        for number in (1, 2):
            (folder / "img1").mkdir(parents=True, exist_ok=True)
            (folder / "img1" / f"{number:06d}.jpg").write_bytes(encode_jpeg(np.zeros((32, 48, 3), np.uint8), 80))
        keys = f"name={name}\nimDir=img1\nframeRate=10\nseqLength=2\nimWidth=48\nimHeight=32\nimExt=.jpg\n"
        (folder / "seqinfo.ini").write_text("[Sequence]\n" + keys)
        (folder / "gt").mkdir()
        (folder / "gt" / "gt.txt").write_text("1,7,1,1,5,5,1,1,1\n2,7,1,1,5,5,1,1,1\n")
    build = ("record", "build", "--clips", tmp_path / "clips", "--out", tmp_path / "record")
    assert run(*build, "--clip_minutes", 90) == 0
    written = read_hours(tmp_path / "record")
    assert not {"sleep_s", "walk_s"} & set(written.columns)  # no label names a behaviour
    hours = written.set_index("animal")["hour"]
    begun = {animal.split(":")[0]: f"{hour:%Y-%m-%d %H}" for animal, hour in hours.items()}
    assert begun == {
        "barn3-2026-01-31-cam1": "2026-01-31 07",
        "barn3-2026-01-31-cam2": "2026-01-31 08",
        "barn3-2026-02-01-cam1": "2026-02-01 07",
    }
    corrected = tmp_path / "clips" / "barn3-2026-01-31-cam1" / "gt" / "gt.txt"
    corrected.write_text(corrected.read_text().replace(",7,", ",9,"))
    (tmp_path / "clips" / "barn3-2026-02-01-cam1").rename(tmp_path / "elsewhere")
    assert run(*build, "--clip_minutes", 120) == 0
    again = read_hours(tmp_path / "record")
    assert [f"{animal} {hour:%d %H}" for animal, hour in zip(again["animal"], again["hour"], strict=True)] == [
        "barn3-2026-01-31-cam1:9 31 07",  # nobody was 7
        "barn3-2026-01-31-cam2:7 31 09",
        "barn3-2026-02-01-cam1:7 01 07",
    ]
    assert run(*build, "--clip_minutes", 1200) == 1
    assert "cam2: would begin 27 hours into 2026_01_31" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("associate", "--outcomes", "TABLE", "--kind", "disease"), "3 animals with one at least"),
        (("associate", "--outcomes", "TABLE", "--level", 0.005, "--permutations", 150), "199 or more"),
        (("associate", "--outcomes", "TABLE", "--level", 2), "--level: is 2"),
        (("associate", "--outcomes", "TABLE", "--days_before", -1), "--days_before: is -1"),
        (("associate", "--outcomes", "absent.csv"), "cannot be read"),
        (("associate", "--outcomes", "TABLE", "--timezone", "Mars"), "--timezone Mars: is no known time zone"),
        (("plot", "--out", "OUT", "--animal", "berta"), "--animal berta: is not in the record"),
        (("plot", "--out", "OUT", "--since", "2027_01_01"), "days from 2027-01-01"),
        (("query", "--sql", "DROP TABLE hours; SELECT 1"), "--sql"),
    ],
)
def test_wrong_words_end_with_a_sentence_and_1(simulated, tmp_path, capsys, words, told):
    places = {"TABLE": simulated / "outcomes.csv", "OUT": tmp_path / "out"}
    assert run("record", words[0], "--record", simulated, *(places.get(word, word) for word in words[1:])) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert told in error


def test_a_pool_is_shown_and_mended_from_the_command_line(tmp_path, capsys):
    folder = tmp_path / "pool"
    with EmbeddingPool(folder, "a" * 64, 8) as opened:
        vector = normalised(np.ones((1, 8), np.float32))[0]
        opened.append([Sample("cam", "s", number, 0.0, vector) for number in range(3)])
        link(opened, [0], "animal-0001")
        link(opened, [1], "animal-0002")
    assert run("reid", "merge", "--pool", folder, "--animal", "animal-0002", "--into", "sow-17", "--reason", "tag") == 0
    assert run("reid", "info", "--pool", folder) == 0
    told = capsys.readouterr().out
    assert "sow-17" in told
    assert "(no name yet)" in told
    assert "merge  animal-0002 -> sow-17: tag" in told
    assert run("reid", "undo", "--pool", folder, "--event", 2) == 0
    assert run("reid", "split", "--pool", folder, "--tracks", "[1]", "--new", "lisa") == 0
    with EmbeddingPool(folder) as opened:
        assert opened.animals == ["animal-0001", "lisa"]
    assert run("reid", "merge", "--pool", folder, "--animal", "berta", "--into", "lisa") == 1
    assert "animal 'berta': is not in the pool, expected animal-0001, lisa" in capsys.readouterr().err
    assert run("reid", "info", "--pool", tmp_path / "absent") == 1


def test_the_tracks_and_events_that_split_and_undo_want_are_shown_however_many_links_there_are(tmp_path, capsys):
    folder = tmp_path / "pool"
    vector = normalised(np.ones((1, 8), np.float32))[0]
    with EmbeddingPool(folder, "a" * 64, 8) as opened:
        times = [NEW_YEAR + 60 * number for number in range(40)]
        opened.append([Sample("cam", "monday", 100 + number, time_s, vector) for number, time_s in enumerate(times)])
        opened.append([Sample("cam", "monday", 130, NEW_YEAR + 7200, vector)])
        link(opened, [0, 1], "animal-0001")
        merge(opened, "animal-0001", "sow-5")
        for track in range(2, 39):
            link(opened, [track], "sow-5", reason=f"known {track}")
        opened.add_track("cam", "monday", 200, "rosa")

    def told(*options):
        capsys.readouterr()
        assert run("reid", "info", "--pool", folder, *options) == 0
        return capsys.readouterr().out.splitlines()

    assert "event 1     merge  animal-0001 -> sow-5: " in told()
    assert not [line for line in told() if " link " in line]
    assert "(no name yet)           1 embeddings of 1 tracks [39]" in told()
    of_sow = told("--animal", "sow-5")
    assert (
        "track 30      camera cam, session monday, number 130: 2 embeddings, 2026-01-01 00:30:00 to "
        "2026-01-01 02:00:00 UTC, event 30"
    ) in of_sow
    assert len(of_sow) == 39 + 1  # and the merge
    assert told("--animal", "rosa") == ["track 40      camera cam, session monday, number 200: no embedding"]
    assert [line.split(" camera")[0] for line in told("--animal", "")] == ["track 39     "]
    assert len(told("--animal", "sow-5", "--links", "true")) == 39 + 1 + 37
    assert "event 30    link   nobody -> sow-5: known 30" in told("--links", "true")
    assert run("reid", "info", "--pool", folder, "--animal", "berta") == 1
    assert "animal 'berta': is not in the pool, expected rosa, sow-5" in capsys.readouterr().err


def test_questions_to_the_record_know_the_name_that_reid_gave(tmp_path, capsys):
    folder = tmp_path / "pool"
    vector = normalised(np.ones((1, 8), np.float32))[0]
    with EmbeddingPool(folder, "a" * 64, 8) as opened, RecordWriter(folder / "record", "cam", session="s") as writer:
        opened.append([Sample("cam", "s", 7, NEW_YEAR, vector)])
        link(opened, [0], "animal-0001")
        for second in range(5):
            writer.observe(NEW_YEAR + second, [Sighting("animal-0001", np.array((0, 0, 9, 9)), number=7)])

    def told():
        capsys.readouterr()
        assert run("record", "query", "--record", folder / "record", "--sql", "SELECT animal, seen_s FROM hours") == 0
        return capsys.readouterr().out.split()[2:]

    assert told() == ["animal-0001", "4.0"]
    assert run("reid", "merge", "--pool", folder, "--animal", "animal-0001", "--into", "sow-17") == 0
    assert told() == ["sow-17", "4.0"]
    assert run("reid", "undo", "--pool", folder, "--event", 1) == 0
    assert told() == ["animal-0001", "4.0"]
    assert run("reid", "split", "--pool", folder, "--tracks", "[0]", "--new", "lisa") == 0
    assert told() == ["lisa", "4.0"]
