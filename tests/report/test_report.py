"""Whole reports: what stands in them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from sdcorr.errors import BadDataset, BadRun, BadScore
from sdcorr.lines import read_lines
from sdcorr.report import Options, gather, to_html, to_markdown
from sdcorr.report._blocks import (
    Bars,
    Curve,
    Heading,
    Pictures,
    Report,
    Section,
    Table,
    Text,
)
from sdcorr.report._sections import _pixels
from sdcorr.scores import Value
from tests.report.runs import ABOUT, EXACT, FAST, PREDICTED, pair, write_run


def tables(section: Section, title: str) -> list[Table]:
    return [one for one in section.blocks if isinstance(one, Table) and one.title == title]


def texts(section: Section) -> str:
    return "\n".join(one.words for one in section.blocks if isinstance(one, Text))


def headings(section: Section) -> list[str]:
    return [one.words for one in section.blocks if isinstance(one, Heading)]


@pytest.fixture(scope="module")
def report(made: dict[str, Path]) -> Report:
    return gather([made[name] for name in ("sift", "willow", "same", "tss")], Options())


def test_runs_stand_together_by_data_set(report: Report):
    assert report.title == "PCK on spair, pf-willow, tss"
    assert [section.title for section in report.sections] == [
        "spair, test, large", "pf-willow", "tss",
    ]  # fmt: skip
    spair, willow, tss = report.sections
    assert headings(spair) == [
        "Runs", "PCK", "PCK over alpha", "By category", "By difficulty",
        "1 sift minus 3 same-position", "Published", "Best and worst pairs",
    ]  # fmt: skip
    assert "1 sift minus" not in " ".join(headings(willow))
    assert "Best and worst pairs" in headings(tss)


def test_the_numbers_of_the_command_line_stand_in_it(report: Report):
    (table,) = tables(report.sections[0], "PCK")
    rows = {row[:2]: row[2:] for row in table.rows}
    assert table.head == ("run", "mean", "@0.1", "@0.05", "@0.01")
    assert rows["3 same-position", "per point"] == ("100.00", "33.33", "0.00")


def test_a_run_is_described(tmp_path: Path):
    path = write_run(
        tmp_path / "run", [pair(), pair("b")], {"a": PREDICTED}, {"b": "t.png is damaged"},
        dataset=ABOUT["dataset"] | {"only": ["cat"], "limit": 2, "seed": 5, "pairs": 2},
    )  # fmt: skip
    (section,) = gather([path], FAST).sections
    (table,) = tables(section, "How the runs were made")
    facts = dict(table.rows)
    assert facts["folder"] == str(path)
    assert facts["weights"] == "some/model abc123"
    assert facts["category in the prompt"] == "not told"
    assert facts["pairs"] == "1; only cat; at most 2 a category (seed 5)"
    assert facts["device, precision"] == "cpu, float32"
    assert facts["versions"] == "torch 2"
    assert facts["dates"] == "2026-01-02"
    assert "LEFT OUT of 1 mine: 1 of 2 pairs, whose photos could not be read: t.png" in texts(
        section
    )


def test_two_runs_by_hand(tmp_path: Path):
    """Three keypoints: one run has all, the other misses one at 0.1, two at 0.05."""
    first = write_run(tmp_path / "a", [pair()], {"a": EXACT})
    second = write_run(tmp_path / "b", [pair()], {"a": PREDICTED})
    (section,) = gather([first, second], Options(alphas=(0.1, 0.05), replicates=0)).sections
    (points,) = tables(section, "Which keypoints one got and the other missed")
    assert points.rows == (
        ("0.1", "2 (66.7 %)", "1 (33.3 %)", "0 (0.0 %)", "0 (0.0 %)"),
        ("0.05", "1 (33.3 %)", "2 (66.7 %)", "0 (0.0 %)", "0 (0.0 %)"),
    )
    (gap,) = tables(section, "Difference")
    assert gap.rows[0] == ("per image", "+33.33", "+66.67")
    (curve,) = [one for one in section.blocks if isinstance(one, Curve)]  # both means are the same
    assert curve.lines[1].values[curve.alphas.index(0.055)] == pytest.approx(1 / 3)
    assert curve.lines[1].values[curve.alphas.index(0.06)] == pytest.approx(2 / 3)
    (bars,) = [one for one in section.blocks if isinstance(one, Bars)]
    ((level, group),) = bars.groups
    assert (level, [bar.note for bar in group]) == ("easy", ["1 pair", "1 pair"])
    assert [bar.value for bar in group] == pytest.approx([1, 2 / 3])


def test_runs_on_other_pairs_of_one_name_stand_apart(tmp_path: Path):
    moved = pair(target_points=[[20, 20], [60, 40], [100, 58]], target_box=[10, 10, 120, 60])
    places = [
        write_run(tmp_path / "a", [pair()], {"a": EXACT}),
        write_run(tmp_path / "b", [moved], {"a": EXACT}),
        write_run(tmp_path / "c", [pair("c")], {"c": EXACT}),
        write_run(tmp_path / "d", [pair(), pair("c")], {"a": EXACT, "c": EXACT}),
    ]
    sections = gather(places, FAST).sections
    heads = [tables(section, "How the runs were made")[0].head[1:] for section in sections]
    assert heads == [("1 mine", "4 mine"), ("2 mine",), ("3 mine",)]
    assert [section.title for section in sections] == ["spair, test, large"] * 3
    assert "is not compared" not in texts(sections[0])
    assert texts(sections[1]).startswith(
        "2 mine is not compared with 1 mine: they annotate the same pairs in different ways.\n"
    )
    assert texts(sections[2]).startswith(
        "3 mine is not compared with 1 mine: they have no pair in common.\n"
        "3 mine is not compared with 2 mine: they have no pair in common.\n"
    )
    assert "did not predict the same pairs" in texts(sections[0])
    assert "on the 1 pair that both predicted" in texts(sections[0])


def test_drawn_pairs_stand_apart_from_real_ones(tmp_path: Path):
    drawn = [{"seed": 3, "pairs": 8}, {"seed": 3, "pairs": 8}, {"seed": 3, "pairs": 9}, None]
    places = [
        write_run(tmp_path / str(n), [pair()], {"a": EXACT}, dataset=ABOUT["dataset"] | more)
        for n, more in enumerate({"drawn": one} if one else {} for one in drawn)
    ]
    sections = gather(places, FAST).sections
    assert [section.title for section in sections] == [
        "spair, test, large, drawn (seed 3)", "spair, test, large, drawn (seed 3)",
        "spair, test, large",
    ]  # fmt: skip
    heads = [tables(section, "How the runs were made")[0].head[1:] for section in sections]
    assert heads == [("1 mine", "2 mine"), ("3 mine",), ("4 mine",)]
    assert texts(sections[1]).startswith(
        "3 mine is not compared with 1 mine: the sets were drawn with other numbers of pairs.\n"
    )
    assert ["is not compared" in texts(section) for section in sections] == [False, True, False]
    assert ["These pairs are drawn." in texts(one) for one in sections] == [True, True, False]


def test_dense_flow_is_told_in_pixels(made: dict[str, Path]):
    (tss,) = gather([made["tss"], made["tss-sift"]], FAST).sections
    assert tss.title == "tss"
    names = ["1 same-position minus 2 sift", "Published", "Best and worst pairs"]
    assert headings(tss)[-3:] == names
    assert "all pixels together" in texts(tss)
    (errors,) = tables(tss, "Average end-point error, pixels of the target: mean over pairs")
    rows = {name: list(map(float, values)) for name, *values in errors.rows}
    # every flow is a shift by (3, -2), and the same place is predicted
    assert rows["all"][0] == pytest.approx((9 + 4) ** 0.5, abs=0.005)
    assert rows["all"][1] > rows["all"][0]
    (gap,) = tables(tss, "Average end-point error, pixels: difference")
    assert float(dict(gap.rows)["all"]) == pytest.approx(rows["all"][0] - rows["all"][1], abs=0.011)
    assert dict(gap.rows)["all"].startswith("-")
    above = tss.blocks[tss.blocks.index(gap) - 1]
    assert isinstance(above, Text)
    assert above.words.endswith("below 0, 1 same-position is better.")


@pytest.mark.parametrize(
    ("value", "signed", "shown"),
    [
        (Value(-0.004), True, "+0.00"),
        (Value(-0.006), True, "-0.01"),
        (Value(1.234, -0.004, 2.0), True, "+1.23 [+0.00, +2.00]"),
        (Value(1.234, 1.0, 2.0), False, "1.23 [1.00, 2.00]"),
        (None, False, "-"),
    ],
)
def test_errors_in_pixels_have_two_decimals(value: Value | None, signed: bool, shown: str):
    assert _pixels(value, signed) == shown


def test_pairs_of_dense_flow_are_shown_without_places(made: dict[str, Path]):
    report = gather([made["tss-sift"], made["tss"]], Options(replicates=0, pairs=2))
    best, worst = [one for one in report.sections[0].blocks if isinstance(one, Pictures)][-2:]
    shown = [one.pair for block in (best, worst) for one in block.pictures]
    assert len({name.rpartition("/")[0] for name in shown}) == 3  # one way of each
    lines = {line["pair"]: line for line in read_lines(made["tss-sift"] / "records.jsonl")}
    hits = {name: sum(line["histogram"][:50]) for name, line in lines.items()}  # up to 0.05
    assert min(hits[name] for name in shown[:2]) >= max(hits[name] for name in shown[2:])
    for picture in (*best.pictures, *worst.pictures):
        source, target = picture.frames
        line = lines[picture.pair]
        error = line["epe"] / line["side"]
        assert target.note == (
            f"{hits[picture.pair]} of 400 pixels right, mean error {error:.3f} of the side"
        )
        assert source.photo.startswith("data:image/jpeg;base64,")
        assert not source.marks
        assert not target.marks
    page = to_html(report)
    assert "Photos alone: a run on dense flow keeps the errors, not the places." in page
    assert "a line joins the two" not in page


def test_the_same_runs_give_the_same_bytes(made: dict[str, Path]):
    paths = [made["sift"], made["same"]]
    options = Options(replicates=100)
    one, other = (gather(paths, options) for _ in range(2))
    assert to_html(one) == to_html(other)
    assert to_markdown(one) == to_markdown(other)


def test_markdown_has_each_number_of_the_page(report: Report):
    text = to_markdown(report).replace("\\", "")
    for section in report.sections:
        for table in (block for block in section.blocks if isinstance(block, Table)):
            for row in table.rows:
                assert f"| {' | '.join(' '.join(cell.split()) for cell in row)} |" in text


def test_pictures_are_left_out_on_demand(made: dict[str, Path]):
    page = to_html(gather([made["sift"], made["same"]], Options(pairs=0, replicates=0)))
    assert "data:image" not in page
    shown = to_html(gather([made["sift"]], Options(pairs=2, replicates=0)))
    assert shown.count("data:image/jpeg") == 8  # two best and two worst pairs


@pytest.mark.parametrize(
    ("alphas", "words"), [((0,), "alpha must be"), ((1.5,), "alpha must be"), ((0.3,), None)]
)
def test_alphas(made: dict[str, Path], alphas: tuple[float, ...], words: str | None):
    options = Options(alphas=alphas, replicates=0, pairs=0)
    if words is None:
        assert gather([made["same"]], options).sections
    else:
        with pytest.raises(BadScore, match=words):
            gather([made["same"]], options)


def test_a_run_without_boxes_is_named(made: dict[str, Path]):
    options = Options(threshold="box", replicates=0)
    with pytest.raises(BadScore, match=r"willow: these pairs have no annotated object box; take"):
        gather([made["sift"], made["willow"]], options)


def test_what_is_no_run_or_twice_one_is_told(made: dict[str, Path], tmp_path: Path):
    with pytest.raises(BadRun, match=r"is no run: it has no run\.json; make one with sdcorr eval"):
        gather([tmp_path], FAST)
    again = tmp_path / "link"
    again.symlink_to(made["same"])
    with pytest.raises(BadRun, match="link is given twice; name each run once"):
        gather([made["same"], again], FAST)
    with pytest.raises(BadRun, match="expected at most 7 runs, got 8; make several reports"):
        gather([made["same"]] * 8, FAST)
    with pytest.raises(BadDataset, match=r"there is no folder .*gone to look for photos in"):
        gather([made["same"]], Options(roots=(tmp_path / "gone",)))


def test_a_recipe_that_was_changed_under_its_name_is_told(made: dict[str, Path], tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(made["sift"], run)
    about = json.loads((run / "run.json").read_text())
    about["recipe"]["matcher"]["mutual"] = True
    (run / "run.json").write_text(json.dumps(about))
    (section,) = gather([run, made["same"]], FAST).sections
    (table,) = tables(section, "How the runs were made")
    facts = {name: values for name, *values in table.rows}
    assert facts["recipe"] == ["sift, other settings than recipe sift", "same-position"]


def test_what_became_of_crowds_is_told(tmp_path: Path):
    told = []
    for crowd in (None, "ab12"):
        run = write_run(tmp_path / str(crowd), [pair()], {"a": EXACT},
                        dataset=ABOUT["dataset"] | {"crowd": crowd})  # fmt: skip
        (table,) = tables(gather([run], FAST).sections[0], "How the runs were made")
        told.append(dict(table.rows)["pairs"])
    assert told == ["1; no list of crowds", "1; photos on a list of crowds left out"]


def test_a_page_of_several_data_sets_begins_with_links(report: Report):
    page = to_html(report)
    links = re.findall(r'<li><a href="#(s\d)">([^<]+)</a></li>', page)
    assert links == [("s1", "spair, test, large"), ("s2", "pf-willow"), ("s3", "tss")]
    assert all(page.count(f'<section id="{name}">') == 1 for name, _ in links)
