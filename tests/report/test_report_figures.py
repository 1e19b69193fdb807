"""Every figure shows its intervals whole, means the same by the same mark, and none of its texts lies on another."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from rna.report import drawing, figures, reading, records
from rna.report.drawing import Picture
from rna.report.records import Study
from tests import generated
from tests.generated import PAIRS, scores, settings
from tests.report.test_report_ngrams import judged

WORLDS = {"one": (PAIRS[4:5], 1), "three": ((PAIRS[0], PAIRS[4], PAIRS[5]), 3), "nine": (PAIRS, 2)}


@pytest.fixture(scope="module", params=["one", "three", pytest.param("nine", marks=pytest.mark.slow)])
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Methods over α and ν; the seeds of some settings differ wildly, so that their intervals are wide."""
    pairs, seeds = WORLDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    generated.world(folder, seeds=seeds, curve=20, pairs=pairs)
    for method, retain in pairs:
        for seed, nu in itertools.product(range(seeds), (0.005, 0.1)):
            made = settings(method, retain, nu=nu, seed=seed)
            generated.trial(folder, made, scores(30 + 4 * seed, 50 + 9 * seed), curve=2)
    for value in (2.0, 20.0):
        for seed in range(seeds):
            steered = settings("rmu", "representation", seed=seed, options={"coefficient": value})
            generated.trial(folder, steered, scores(30, 60 - value + 5 * seed), curve=2)
    for layers, unlearn in (([0], 2), ([1], 2), ([0, 1], 2), ([2, 3], 2), ([0, 1, 2, 3], 2), ([1], 1)):
        generated.trial(folder, settings(nu=0.01, layers=layers, unlearn=unlearn), scores(30, 55), curve=2)
    generated.trial(folder, settings(nu=0.002, layers=[0, 1, 2, 3]), scores(30, 58), curve=2)
    generated.trial(folder, settings(unlearn=1), scores(30, 52), curve=2)
    for nu in (0.0, 0.014):
        made = settings(nu=nu, seed=0)
        generated.trial(folder, made, judged(95, 5.0 if nu else 0.0, 2, 4), curve=2)
    (found,) = records.studies(records.select(reading.load(str(folder)).trials, records.Filters()))
    return found


@pytest.fixture(scope="module")
def pictures(study: Study) -> list[Picture]:
    made = [picture for picture in figures.every(study) if picture.drawing is not None]
    assert {"figure1", "figure3", "figure4", "pareto", "matched_forgetting", "training_forget"} <= {
        picture.name for picture in made
    }
    with drawing.styled():
        for picture in made:
            picture.drawing.draw_without_rendering()
    return made


def panels(picture: Picture) -> list[Any]:
    return [axes for axes in picture.drawing.axes if axes.get_visible()]


@pytest.mark.whole
def test_every_interval_lies_whole_within_its_axes(pictures: list[Picture]):
    seen = 0
    for picture in pictures:
        for axes in panels(picture):
            bars = [part for one in axes.collections if isinstance(one, LineCollection) for part in one.get_segments()]
            seen += len(bars)
            (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
            for x, y in (end for part in bars for end in part):
                assert left <= x <= right, picture.name
                assert low <= y <= high, picture.name
    assert seen > 50


def look(one: Any) -> tuple[Any, ...]:
    return one.get_marker(), one.get_color(), one.get_markersize(), one.get_markerfacecolor()


@pytest.mark.whole
def test_a_legends_marks_are_those_of_the_plot(pictures: list[Picture]):
    for picture in pictures:
        (legend,) = picture.drawing.legends
        drawn = [line for axes in panels(picture) for line in axes.lines if len(line.get_xdata())]
        looks, dashes = {look(line) for line in drawn}, {(line.get_color(), line.get_linestyle()) for line in drawn}
        handles = [handle for handle in legend.findobj(Line2D) if handle.get_xdata() is not None]
        assert handles, picture.name
        for handle in handles:
            if handle.get_marker() not in ("", "None"):
                assert look(handle) in looks, (picture.name, look(handle))
            if handle.get_linestyle() != "None":
                assert (handle.get_color(), handle.get_linestyle()) in dashes, picture.name


@pytest.mark.whole
def test_a_colour_is_one_methods_and_a_mark_one_arms_in_all_figures(study: Study, pictures: list[Picture]):
    own = {method: drawing.colour(study, method) for method in study.methods}
    assert len({*own.values(), drawing.PLAIN, drawing.INK}) == len(own) + 2
    marks = {look["marker"] for look in drawing.ARMS.values()} | set(drawing.REFERENCES.values())
    assert len(marks) == len(drawing.ARMS) + len(drawing.REFERENCES)
    of_arm = {"o": {drawing.PLAIN}, "D": set(own.values())}
    for picture in pictures:
        for line in (line for axes in panels(picture) for line in axes.lines):
            assert line.get_color() in of_arm.get(line.get_marker(), {line.get_color()}), picture.name


@pytest.mark.whole
def test_no_text_lies_on_another_or_leaves_the_figure(pictures: list[Picture]):
    for picture in pictures:
        figure = picture.drawing
        whole = figure.bbox
        found = [figure._suptitle, *figure.legends[0].get_texts()]
        for axes in panels(picture):
            found += [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
            found += [tick.label1 for axis in (axes.xaxis, axes.yaxis) for tick in axis._update_ticks()]
        shown = [text for text in found if text.get_visible() and text.get_text()]
        boxes = [(text.get_text(), text.get_window_extent().padded(-1)) for text in shown]
        boxes = [(text, box) for text, box in boxes if box.width > 0 and box.height > 0]
        for text, box in boxes:
            assert whole.x0 <= box.x0 <= box.x1 <= whole.x1 + 1, (picture.name, text)
        for (one, first), (other, second) in itertools.combinations(boxes, 2):
            assert not first.overlaps(second) or rotated(one, other), (picture.name, one, other)


def rotated(one: str, other: str) -> bool:
    """Numbers below one axis, whose boxes but not whose letters overlap where they are turned."""
    return all(text.replace(".", "").replace("−", "").isdigit() for text in (one, other))


@pytest.mark.whole
def test_every_figure_says_what_to_see_and_every_axis_what_it_measures(pictures: list[Picture]):
    for picture in pictures:
        assert len(picture.drawing._suptitle.get_text().split()) > 4, picture.name
        axes = panels(picture)
        assert any(one.get_xlabel() for one in axes), picture.name
        said = " ".join(
            text for one in axes for text in (one.get_xlabel(), one.get_ylabel(), one.get_title(loc="left"))
        )
        assert "%" in said or picture.name.startswith("training"), picture.name


@pytest.mark.whole
def test_the_first_figure_says_what_a_token_costs(study: Study, pictures: list[Picture]):
    """Neutral is at 94, perturbed at 56 ± 1 without RNA and ten points higher with it, of PO methods."""
    said = pictures[0].drawing._suptitle.get_text().replace("\n", " ")
    assert said.startswith("A forget-token costs ")
    if len(study.methods) == 1:
        assert said.startswith("A forget-token costs NPO+MSE 3")
    assert "without RNA" in said


@pytest.mark.whole
def test_only_a_methods_own_settings_are_joined(study: Study, pictures: list[Picture]):
    """In the trade-off figures a panel is one method's."""
    for name in ("pareto", "matched_forgetting"):
        (picture,) = [one for one in pictures if one.name == name]
        for axes in panels(picture):
            (method,) = [one for one in study.methods if axes.get_title(loc="left").split(",")[0].split("\n")[0] == one]
            own = [line for line in axes.lines if line.get_gid() != "chance"]
            joined = {line.get_color() for line in own if line.get_linestyle() in ("-", "--")}
            assert joined <= {drawing.PLAIN, drawing.colour(study, method)}


@pytest.mark.whole
def test_noise_scales_stand_beside_the_front(pictures: list[Picture]):
    (picture,) = [one for one in pictures if one.name == "pareto"]
    assert any(text.get_text().startswith("ν ") for axes in panels(picture) for text in axes.texts)


def test_methods_of_others_have_colours_of_their_own(tmp_path: Path):
    for name in ("graddiff", "npo", "simnpo"):
        generated.trial(tmp_path, settings(name, "representation"), scores(30, 60))
    (found,) = records.studies(records.select(reading.load(str(tmp_path)).trials, records.Filters()))
    own = [drawing.colour(found, method) for method in found.methods]
    assert len(set(own)) == len(found.methods) == 3
    assert not set(own) & set(drawing.COLOURS.values())


SEEN = {
    "all": np.eye(3),
    "no green": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "no red": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
}


@pytest.mark.parametrize("eyes", SEEN)
def test_the_colours_can_be_told_apart_with_any_eyes(eyes: str):
    """Any two methods, and plain, by Machado et al. (2009); names stand beside them too."""

    def seen(hexadecimal: str) -> np.ndarray:
        linear = np.array([int(hexadecimal[place : place + 2], 16) / 255 for place in (1, 3, 5)]) ** 2.2
        return np.clip(SEEN[eyes] @ linear, 0, 1) ** (1 / 2.2)

    every = [*drawing.COLOURS.values(), drawing.PLAIN]
    assert list(drawing.COLOURS) == records.PAPER_ORDER
    for one, other in itertools.combinations(every, 2):
        assert float(np.linalg.norm(seen(one) - seen(other))) > 0.12, (one, other)
