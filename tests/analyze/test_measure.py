"""What the analyses measure, on tiny models where it is known otherwise; and their command line on the demo."""

import csv
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from rna import printing, run, trial
from rna.analyze import command as analyze
from rna.analyze import draw, measure, scales, theory
from rna.analyze.measure import Question
from rna.decoder import model
from rna.report import analyses
from rna.settings import config
from rna.sweep import ledger
from rna.unlearning.noise import GaussianNoise, Normals
from tests import tiny
from tests.test_readme import ANALYSES


@pytest.fixture(scope="module")
def small():
    return tiny.decoder("Mistral", layers=3)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


IDS = [7, 8, 9, 10, 11, 12]


def quiet(*_: int) -> None: ...


def test_the_rest_of_the_model_ends_as_the_model_does(small):
    stream = measure.entering(small, IDS, 2)
    own = small.base(torch.tensor([IDS])).last_hidden_state[:, -1]
    assert_close(measure.rest_of(small, stream)(stream.hidden_BTD), own)
    logits = small.model(torch.tensor([IDS])).logits[0]
    assert_close(measure.answer_loss(small, stream, 5)(stream.hidden_BTD)[0], -logits[-1].log_softmax(-1)[5])
    expected = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(IDS[1:]))
    assert_close(measure.text_loss(small, stream, IDS)(stream.hidden_BTD)[0], expected)


def test_a_layers_sensitivity_is_that_of_its_full_jacobian(small):
    """The first layer on six tokens: 96 unit vectors as probes, one noise, and jacrev as the judge."""
    stream = measure.entering(small, IDS, 0)
    layer, hidden = measure.layer_of(small, stream), stream.hidden_BTD
    noise = 0.3 * torch.randn(hidden.shape, generator=source())
    probes = torch.eye(hidden.numel()).view(-1, *hidden.shape[1:])
    with measure.sdpa_kernel(measure.SDPBackend.MATH):
        found = theory.noise_sensitivity(layer, hidden, noise.expand(len(probes), -1, -1), probes)
        before, after = (torch.func.jacrev(layer)(point) for point in (hidden, hidden + noise))
    assert found.value == pytest.approx(((after - before).square().sum() / before.square().sum()).item(), rel=1e-4)


def test_projected_jacobians_are_rows_of_the_full_one(small):
    stream = measure.entering(small, IDS, 2)
    rest = measure.rest_of(small, stream)
    project = torch.randn(16, 3, generator=source())
    full = torch.func.jacrev(lambda hidden: rest(hidden)[0])(stream.hidden_BTD).flatten(1)
    assert_close(measure.projected_jacobian(rest, stream.hidden_BTD, project), project.T @ full, rtol=1e-4, atol=1e-5)


def test_gradients_are_each_samples_own(small):
    stream = measure.entering(small, IDS, 2)
    loss = measure.answer_loss(small, stream, 3)
    points = stream.hidden_BTD + measure.gaussian(stream.hidden_BTD, 0.1, 3, source())
    each = [torch.func.grad(lambda hidden: loss(hidden[None])[0])(point) for point in points]
    assert_close(measure.gradients(loss, points), torch.stack(each))


def test_small_noise_obeys_theorem_4_2_and_large_noise_does_not(small):
    question = Question({"plain": IDS}, 3)
    rows = measure.output_shifts(small, [question], 1, [0.001, 3.0], 400, 4, source(), quiet)
    assert rows[0]["variance_ratio"] == pytest.approx(1, abs=0.15)
    assert not rows[0]["covariance_rejected"]
    assert rows[1]["covariance_rejected"]


def test_the_loss_increase_of_small_noise_is_half_mu_times_the_trace(small):
    rows = measure.loss_increases(small, [IDS, IDS[::-1]], 1, [0.03], 256, source(), quiet)
    for row in rows:
        spread = 4 * (row["increase_stderr"] + row["formula_stderr"])
        assert abs(row["increase"] - row["formula"]) < spread
        assert abs(row["formula"]) > 0.5 * row["formula_stderr"]
        assert row["smallest_eigenvalue"] < row["largest_eigenvalue"]


def test_simulated_rejections_meet_the_exact_formula_for_small_noise(small):
    """With η = 4ν and equal gradients: exact ½ − arctan(√2)/π = 0.196, the paper's ½ − arctan(1)/π = 0.25."""
    questions = [Question({"plain": IDS}, 3), Question({"plain": IDS[::-1]}, 5)]
    rows = measure.simulated_rejections(small, questions, 1, 1e-8, [4.0], 1500, source(), quiet)
    for row in rows:
        assert row["gradient_ratio"] == pytest.approx(1, abs=0.01)
        assert row["exact"] == pytest.approx(0.196, abs=0.005)
        assert row["observed"] == pytest.approx(row["exact"], abs=4 * (0.2 * 0.8 / 1500) ** 0.5)


def test_keyword_rejections_meet_the_gaussian_given_the_shift(small):
    question = Question({"plain": IDS, "forget": [7, 40, 41, 9, 10, 11, 12]}, 3)
    row = measure.keyword_rejections(small, [question], "forget", 1, 1e-6, 2000, source())[0]
    assert row["observed"] == pytest.approx(row["given_shift"], abs=0.05)
    streams = [measure.entering(small, question.ids[role], 2) for role in ("plain", "forget")]
    losses = [measure.answer_loss(small, stream, 3)(stream.hidden_BTD).item() for stream in streams]
    assert row["change"] == pytest.approx(losses[1] - losses[0], rel=1e-4)


def test_what_follows_a_keyword_is_found_from_the_end():
    assert measure.kept([1, 2, 3, 4], [1, 9, 9, 3, 4]) == 2
    assert measure.kept([1, 2], [1, 2]) == 2


def test_alignment_reads_the_planted_direction(small):
    """A direction is the very shift of one layer and position: its cosine is 1 there, and its negative's −1."""
    question = Question({"plain": IDS, "forget": [7, 40, 41, 10, 11, 12]}, 3)
    before, after = (list(measure.every_layer(small, question.ids[role])) for role in ("plain", "forget"))
    shift = (after[2].hidden_BTD - before[2].hidden_BTD)[0, -2].float()  # leaves layer 1, two tokens behind the keyword
    targets = {"planted": shift.expand(3, -1), "against": -shift.expand(3, -1)}
    rows = measure.alignments(small, [question, question], "forget", targets, [0, 1, 2, 3, 4, "last"])
    cell = {(row["target"], row["layer"], row["position"]): row for row in rows}
    assert cell["planted", 1, 2]["cosine"] == pytest.approx(1, abs=1e-5)
    assert cell["against", 1, 2]["cosine"] == pytest.approx(-1, abs=1e-5)
    assert cell["planted", 1, "last"] | {"position": 3} == cell["planted", 1, 3]
    assert ("planted", 1, 4) not in cell  # only three tokens follow
    assert abs(cell["planted", 0, 2]["cosine"]) < 0.99


def test_the_base_is_itself_again_after_a_trial(small):
    names = model.trained_names(small, [1], "down_proj")
    before = measure.mean_streams(small, [IDS])
    deltas = {name: dict(small.model.named_parameters())[name] + 0.5 for name in names}
    with model.installed(small, deltas):
        moved = measure.mean_streams(small, [IDS])
    assert_close(measure.mean_streams(small, [IDS]), before)
    assert_close(moved[0], before[0])
    assert (moved[1] - before[1]).norm() > 0.1


# The command line


@pytest.fixture(scope="module")
def trials(tmp_path_factory) -> tuple[Path, list[str]]:
    """A plain and an RNA trial of one step."""
    config.register_resolvers()
    folder = tmp_path_factory.mktemp("outputs")
    common = ["method=rmu", "train.steps=1", "train_only=true", "wandb=disabled", f"output_dir={folder}"]
    rows = trial.arms(config.check(run.compose(common, None)))
    for row in rows:
        trial.work(row, lambda *_: None)
    return folder, [row.key for row in rows]


def options(what: str, folder: Path, *rest: str, **given):
    defaults = {"model": None, "questions": None, "layer": None, "limit": 3, "samples": 20, "nu": None, "seed": 0}
    defaults["command"] = f"python -m rna.analyze {what}"
    return analyze.argparse.Namespace(what=what, rest=list(rest), output_dir=str(folder), **{**defaults, **given})


TABLES = {
    "noise_sensitivity": ["table"],
    "eq_9": ["table"],
    "theorem_4_2": ["theorem_4_2", "assumption_4_1", "real_shift"],
    "theorem_5_2": ["proof", "gaussian", "keyword", "trained_pairs"],
    "backdoor": ["table"],
    "relative_noise": ["table", "pairs"],
}
README = {shlex.split(command)[3]: shlex.split(command)[4:] for command in ANALYSES}


@pytest.mark.whole
@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=[pytest.mark.slow] if what == "relative_noise" else []) for what in TABLES]
)
def test_each_analysis_of_the_readme_writes_tables_a_figure_and_a_verdict(what, trials, capsys, monkeypatch):
    folder, keys = trials
    given = iter(keys)
    words = [what, *(next(given) if word == "KEY" else word for word in README[what])]
    samples = "20" if what == "theorem_4_2" else "2"  # a covariance needs more samples than projections
    words += ["--limit", "2", "--samples", samples, "--output-dir", str(folder)]
    words += ["train.steps=2"] if what == "relative_noise" else []
    monkeypatch.setattr(sys, "argv", ["rna.analyze", *words])
    analyze.main()
    out = folder / "reports" / "analyses" / "demo" / what
    verdict = (out / "verdict.txt").read_text().strip()
    assert verdict in capsys.readouterr().out
    assert verdict.endswith(("noise.", "alone.", "%.", ").", "questions.", "."))
    assert printing.in_markdown(verdict) in (out / "report.md").read_text()
    for name in TABLES[what]:
        rows = list(csv.DictReader((out / f"{name}.csv").open()))
        assert rows
        assert "nan" not in {value for row in rows for value in row.values()}
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "figure.svg").stat().st_size > 5000
    found, unreadable = analyses.load(str(folder), ["demo"])
    (shown,) = [one for one in found if one.name == f"{what}-demo"]
    assert unreadable == []
    assert (shown.verdict, shown.command) == (verdict, shlex.join(["python", "-m", "rna.analyze", *words]))
    assert [table.name for table in shown.tables] == TABLES[what]
    assert (keys[0] in shown.notes[0]) == (keys[0] in words)


@pytest.mark.whole
def test_a_sweeps_name_stands_for_its_finished_trials(trials):
    folder, keys = trials
    where = folder / "sweeps" / "mine"
    for number, (key, status) in enumerate([(keys[0], ledger.DONE), (keys[1], ledger.FAILED), (keys[0], ledger.DONE)]):
        ledger.save(where, ledger.Trial(number, [], status=status, address={"key": key}))
    chosen = config.check(run.compose([f"output_dir={folder}"], None))
    assert analyze._keys(chosen, ["mine", keys[1][:6], keys[0][:6]]) == [keys[0], keys[1]]
    ledger.save(folder / "sweeps" / "begun", ledger.Trial(0, [], address={"key": keys[0]}))
    with pytest.raises(ValueError, match="KEY=begun: a sweep without a finished trial"):
        analyze._keys(chosen, ["begun"])


def test_two_activation_scales_are_compared_by_fraction_and_by_sigma(monkeypatch: pytest.MonkeyPatch):
    """By hand: seeds 0 and 1 at 50 and 60; the same fraction gives +1 and +3, so 2 ± 12.706·√2/√2; the same σ −10."""
    monkeypatch.setattr(scales, "RATIOS", (0.5,))
    rows = []
    for seed, level, gap in ((0, 50.0, 1.0), (1, 60.0, 3.0)):
        for name, ratio, std, change in (
            ("base", 0.5, 0.04, 0.0),
            ("rescaled", 0.5, 0.16, gap),
            ("rescaled", 0.125, 0.04, -10.0),
        ):
            rows.append({"model": name, "seed": seed, "std_over_rms": ratio, "std": std, "perturbed": level + change})
    outcome = scales._told(rows, 0.08)
    pairs = {row["way"]: row for row in outcome.tables["pairs"]}
    found = pairs["the same fraction"]
    assert (found["rescaled_minus_base"], found["largest_of_a_seed"]) == (2.0, 3.0)
    assert found["margin"] == pytest.approx(12.706, abs=1e-3)
    assert (pairs["the same σ"]["rescaled_minus_base"], pairs["the same σ"]["margin"]) == (-10.0, 0.0)
    (base,) = [row for row in outcome.tables["table"] if row["model"] == "base"]
    assert (base["perturbed"], base["seeds"]) == (55.0, 2)
    assert "+2.0 ± 12.7 at 0.5 (no seed differs by more than 3.0)" in outcome.verdict


@pytest.mark.slow
def test_the_curves_of_two_activation_scales_collapse(demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Rates so high that the noise shows: with the same fraction accuracies agree, with the same σ they do not."""
    monkeypatch.setattr(scales, "RATIOS", (0.5,))
    words = ["retain=kl", "train.steps=4", "train.lr=1e-3", "eval.limit=16", "model.threads=null"]
    words.append(f"output_dir={tmp_path}")
    chosen = config.check(run.compose(words, None))
    outcome = scales.relative_noise(chosen, *demo, 2, tmp_path / "made", [0, 1])
    cells = {(row["model"], row["std_over_rms"], row["seed"]): row for row in outcome.rows}
    assert set(cells) == {
        (name, ratio, seed)
        for seed in (0, 1)
        for name, ratios in (("base", (0.0, 0.5)), ("rescaled", (0.0, 0.5, 0.125)))
        for ratio in ratios
    }
    for seed in (0, 1):
        same, other = cells["rescaled", 0.5, seed], cells["rescaled", 0.125, seed]
        assert same["perturbed"] == cells["base", 0.5, seed]["perturbed"]
        assert other["std"] == pytest.approx(cells["base", 0.5, seed]["std"])
        assert same["std"] == pytest.approx(scales.FACTOR * other["std"])
        assert len({same["key"], other["key"], cells["base", 0.5, seed]["key"]}) == 3
    gaps = {row["way"]: row["largest_of_a_seed"] for row in outcome.tables["pairs"]}
    assert gaps["the same fraction"] == 0
    assert gaps["the same σ"] == max(
        abs(cells["rescaled", 0.125, seed]["perturbed"] - cells["base", 0.5, seed]["perturbed"]) for seed in (0, 1)
    )
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "made" / "results").iterdir()}
    again = scales.relative_noise(chosen, *demo, 2, tmp_path / "made", [0, 1])
    assert again.rows == outcome.rows
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "made" / "results").iterdir()} == written


def test_a_model_whose_stream_cannot_be_rescaled_is_refused():
    with pytest.raises(ValueError, match="the stream of Gemma2ForCausalLM cannot be rescaled"):
        scales.rescaled(tiny.decoder("Gemma2"), [IDS])
    scales.rescaled(tiny.decoder("Llama"), [IDS, IDS[:3]])


def test_every_analysis_has_a_title_for_the_report():
    assert set(analyze.WHAT) == set(draw.TITLES)


def test_a_figure_of_many_models_keeps_room_for_its_lines(tmp_path: Path, recwarn: pytest.WarningsRecorder):
    """27 trials by their labels: the legend stands below, and what it takes the figure gains."""
    names = [f"{method} seed {seed}" for method in "abcdefghi" for seed in range(3)]
    rows = [
        {"model": name, "noise": noise, "layer": layer, "sensitivity": 1.0, "margin": 0.1}
        for name in names
        for noise in ("1", "rms")
        for layer in range(4)
    ]
    heights: list[float] = []

    def drawn(figure: Any) -> None:
        draw.sensitivity(figure, rows)
        figure.draw_without_rendering()
        heights.extend(axes.get_position().height * figure.get_figheight() for axes in figure.axes)

    draw.save(tmp_path, drawn, width=9.0, height=3.4)
    assert min(heights) > 2.4
    assert not [one for one in recwarn if "constrained_layout" in str(one.message)]


@pytest.mark.parametrize(
    ("what", "rest", "given", "message"),
    [
        ("eq_9", [], {"samples": 1}, "--samples 1: an interval needs at least 2"),
        ("theorem_4_2", [], {"samples": 19}, "--samples 19: a covariance of 16 projections needs at least 20"),
        ("eq_9", [], {"limit": 1}, "--limit 1: an interval needs at least 2"),
        ("eq_9", [], {"layer": 4}, "--layer 4: outside the model; allowed: 0 to 3"),
        ("eq_9", ["nosuchkey"], {}, "KEY=nosuchkey: no trial of that key"),
        ("backdoor", [], {}, "backdoor: at least one KEY is needed"),
        ("relative_noise", ["method=rmu"], {}, "method=rmu: relative_noise compares losses that know no"),
        ("relative_noise", [], {"samples": 1}, "--samples 1: an interval needs at least 2"),
        ("theorem_5_2", [], {"nu": 0.0}, "--nu 0.0: must be above 0"),
        ("theorem_4_2", [], {"questions": "none.jsonl"}, "--questions none.jsonl: cannot be read"),
    ],
)
def test_bad_input_is_refused(what, rest, given, message, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        analyze.analyze(options(what, tmp_path, *rest, **given))


@pytest.mark.whole
def test_a_model_whose_layers_lie_elsewhere_is_analysed(tmp_path: Path):
    chosen = tiny.nested(tmp_path / "base")
    analyze.analyze(options("eq_9", tmp_path / "out", *chosen, "model.name=nested", limit=2, samples=2))
    assert (tmp_path / "out" / "reports" / "analyses" / "nested" / "eq_9" / "verdict.txt").read_text().strip()


def test_questions_need_their_fields(tmp_path: Path):
    file = tmp_path / "exam.jsonl"
    file.write_text(json.dumps({"question": "?", "choices": ["a", "b"]}) + "\n")
    with pytest.raises(ValueError, match="line 1 must have answer, choices, question, subject"):
        analyze.analyze(options("theorem_4_2", tmp_path, questions=str(file)))


def test_help_is_instant_and_says_what_there_is():
    done = subprocess.run([sys.executable, "-m", "rna.analyze", "--help"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    assert all(what in done.stdout for what in TABLES)


def test_relative_noise_has_a_std_by_layer():
    noise = GaussianNoise({1: 0.5}, (1,), Normals(0))
    assert noise(1, torch.zeros(100, 10, 10)).std().item() == pytest.approx(0.5, rel=0.02)
