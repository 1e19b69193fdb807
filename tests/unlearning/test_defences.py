"""What defences make of retain texts, and that policy and reference read exactly that."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from rna.corpora import data
from rna.corpora.documents import Documents
from rna.decoder import SoftTokens, model
from rna.settings import BUILTIN
from rna.settings.fields import Settings
from rna.settings.seeding import generator
from rna.unlearning.checkpoint import Checkpoint
from rna.unlearning.defence import Bank, Drawn, Ground, Sample
from rna.unlearning.defences.adversarial import Adversarial
from rna.unlearning.defences.harmful import Harmful, pool_of
from rna.unlearning.defences.mixed import Mixed
from rna.unlearning.defences.placebo import twins
from rna.unlearning.defences.scope import Scope
from rna.unlearning.defences.splice import Splice
from rna.unlearning.defences.windows import Windows
from rna.unlearning.step import Reading, Step
from tests import oracle, tiny
from tests.decoder.test_staged import trial
from tests.unlearning import test_checkpoint
from tests.unlearning.test_checkpoint import STEPS, Killed, assert_equal
from tests.unlearning.test_checkpoint import settings as resumed
from tests.unlearning.test_train import corpora, settings

BOS = 1
WORDS = SimpleNamespace(all_special_ids=[BOS], decode=lambda ids: f" w{ids[0]}")
NAMES = ("adversarial", "soft", "splice", "harmful", "placebo", "scope")


# Soft tokens in the staged step, against the plain one

INDEX_BT = torch.tensor([[0, 1, 2, 0, 0, 0, 3, 0, 0], [0, 0, 2, 0, 0, 0, 0, 0, 0], [5, 0, 0, 0, 6, 0, 0, 0, 0]])


@contextmanager
def replaced(network: Any, index_BT: Tensor, bank_MD: Tensor, sites: tuple[int, ...]) -> Generator[None]:
    """A whole model with the vectors put into what enters its layers, one by one."""

    def enters(site: int) -> Any:
        def hook(_module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            rows = [list(row) for row in args[0]]
            for place, vector in ((at, int(index_BT[*at])) for at in index_BT.nonzero().tolist()):
                if sites[vector - 1] == site:
                    rows[place[0]][place[1]] = bank_MD[vector - 1]
            return (torch.stack([torch.stack(row) for row in rows]), *args[1:])

        return hook

    hooks = [layer.register_forward_pre_hook(enters(site)) for site, layer in enumerate(network.model.layers)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize(
    ("method", "retain_loss", "sites", "noise", "way"),
    [
        ("rmu", "representation", (0, 0, 1, 1, 2, 2), (2,), "padded"),
        ("npo", "kl", (0, 0, 1, 1, 2, 2), (), "packed"),
        ("npo", "mse", (0, 0, 0, 0, 0, 0), (0, 3), "recomputed"),
        ("simnpo", "kl", (1, 1, 2, 2, 2, 2), (0,), "packed"),
        ("rmu", "representation", (2, 2, 2, 2, 2, 2), (0, 1), "padded"),
    ],
)
def test_soft_tokens_equal_the_plain_step(
    method: str, retain_loss: str, sites: tuple[int, ...], noise: tuple[int, ...], way: str
):
    decoder = tiny.decoder()
    names = model.trained_names(decoder, (1, 2), "down_proj")
    batch = tiny.batch(5)
    ignored_BT = batch.mask_BT & (INDEX_BT > 0)
    read = tiny.batch(5)
    read.ignored_BT = ignored_BT
    if way == "packed":
        read = read.packed(0.0)
    bank_MD = torch.randn(6, 16, generator=generator(0, "bank"))

    def drifted(tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for index, name in enumerate(names):
                tensors[name] += 0.1 * torch.randn(tensors[name].shape, generator=generator(index, "drift"))

    policy, staged_bank = model.masters(decoder, names), bank_MD.clone().requires_grad_()
    drifted(policy)
    reading = Reading(read, SoftTokens(read, INDEX_BT, staged_bank, sites))
    made = trial(method, retain_loss, noise)
    step = Step(
        decoder, policy, made, "bio", tiny.batch(1), batch, None, recompute=way == "recomputed", readings=[reading]
    )
    staged = dict(step)["retain"]
    staged.backward()

    plain, made, plain_bank = oracle.Plain.of(decoder.model, names), trial(method, retain_loss, noise), bank_MD.clone()
    plain_bank.requires_grad_()
    drifted(dict(plain.policy.named_parameters()))
    with replaced(plain.policy, INDEX_BT, plain_bank, sites):
        z, logits = oracle.forward(plain.policy, batch, 2, "residual")
    with torch.no_grad(), replaced(plain.reference, INDEX_BT, bank_MD, sites):
        z_ref, logits_ref = oracle.forward(plain.reference, batch, 2, "residual", made.noise)
    counted = batch.mask_BT & ~ignored_BT
    log_p, log_q = (log_softmax(found[counted], -1) for found in (logits, logits_ref))
    wanted = {
        "representation": lambda: ((z - z_ref) ** 2)[counted].mean(),
        "mse": lambda: ((log_p - log_q) ** 2).mean(),
        "kl": lambda: (log_q.exp() * (log_q - log_p)).sum(-1).mean(),
    }[retain_loss]()
    wanted.backward()
    assert staged.item() == pytest.approx(wanted.item(), rel=2e-5)
    own = dict(plain.policy.named_parameters())
    for mine, its in [*((policy[name].grad, own[name].grad) for name in names), (staged_bank.grad, plain_bank.grad)]:
        assert its.abs().max() > 0
        torch.testing.assert_close(mine, its, rtol=2e-4, atol=2e-5 * its.abs().max().item())
    assert staged_bank.grad is not None
    assert staged_bank.grad[3].abs().max() == 0  # stands nowhere


def test_the_retain_loss_of_each_text_is_that_of_a_step_with_it_alone():
    decoder, batch = tiny.decoder(), tiny.batch(5)
    names = model.trained_names(decoder, (1, 2), "down_proj")
    policy = model.masters(decoder, names)
    with torch.no_grad():
        policy[names[0]] += 0.3
    for method, retain_loss in (("rmu", "representation"), ("npo", "kl")):
        made = trial(method, retain_loss, ())
        found = Step(decoder, policy, made, "bio", batch, batch, None).retain_losses(Reading(batch))
        for row, size in enumerate((9, 5, 7)):
            one = tiny.pad([batch.ids_BT[row, :size].tolist()], 0)
            alone = dict(Step(decoder, policy, made, "bio", batch, one, None))["retain"].item()
            assert found[row] == pytest.approx(alone, rel=1e-5)


# Texts


def spliced(texts: list[list[int]], seed: int, **options: Any) -> Sample:
    made = Windows(name="w", windows=3, size=2)
    common: dict[str, Any] = {"leading": lambda ids: int(ids[0] == BOS), "max_length": 64}
    return made.spliced(texts, lambda size: [(90 + size, 0)] * size, Random(seed), **(common | options))


def test_windows_stand_between_a_texts_own_tokens_and_do_not_count():
    texts = [[BOS, 11, 12, 13, 14, 15, 16, 17], [21, 22, 23]]
    sizes = set[int]()
    for seed in range(50):
        made = spliced(texts, seed)
        assert made.counted is not None
        for text, row, counted in zip(texts, made.rows, made.counted, strict=True):
            assert [one for one, counts in zip(row, counted, strict=True) if counts] == text
            others = [one for one, counts in zip(row, counted, strict=True) if not counts]
            assert set(others) <= {91, 92}
            sizes.add(len(others))
            assert row[0] == BOS or text[0] != BOS
            assert row[-1] == text[-1]  # what stands behind all else nobody reads
        assert made.tokens == 11
    assert sizes == {1, 2, 3, 4, 5, 6}


def test_windows_in_place_of_tokens_leave_every_second_and_all_places():
    text = [BOS, *range(11, 31)]
    for seed in range(50):
        made = spliced([text], seed, in_place=1.0)
        assert made.counted is not None
        assert len(made.rows[0]) == len(text)
        assert all(a == b for a, b, counts in zip(made.rows[0], text, made.counted[0], strict=True) if counts)
        assert 10 <= sum(made.counted[0]) < 21
    short = spliced([[BOS, 11]], 0, in_place=1.0)  # has no room for them: between
    assert short.tokens == 2


def test_a_text_with_windows_is_cut_at_the_maximum_length():
    for seed in range(20):
        made = spliced([[BOS, 11, 12, 13, 14]], seed, max_length=5)
        assert len(made.rows[0]) == 5
        assert made.rows[0][0] == BOS


def ground(forget: Any = (), retain: Any = (), tokenizer: Any = WORDS) -> Ground:
    here = tiny.decoder(layers=2)
    return Ground(here, tokenizer, trial("npo", "kl"), {"bio": list(forget)}, list(retain), 8, [1, 2], 0)


def test_scope_holds_the_retain_part_of_forget_and_retain_text():
    drawn = Drawn([[BOS, 31, 32, 33, 34, 35], [BOS, 41]], [[BOS, 11, 12, 13, 14, 15], [BOS, 21, 22]], Random(0))
    plain, behind = Scope(name="scope", weight=0.5).samples(ground(), drawn)
    assert plain.rows == drawn.retain
    assert (plain.counted, plain.weight, behind.weight) == (None, 1.0, 0.5)
    assert behind.rows == [[BOS, 31, 32, 33, 11, 12, 13, 14], [BOS, 41, 21, 22]]
    assert behind.counted == [[False] * 4 + [True] * 4, [False] * 2 + [True] * 2]


def test_scope_leaves_the_tokens_of_excluded_words_out_of_the_forget_part():
    drawn = Drawn([[BOS, 31, 32, 33, 34, 35]], [[BOS, 11, 12]], Random(0))
    _, behind = Scope(name="scope", weight=0.5, exclude=["w32 w33", "w9"]).samples(ground(), drawn)
    assert behind.rows == [[BOS, 31, 34, 35, 11, 12]]


def test_mixed_prompts_hold_a_forget_question_before_a_retain_question_or_before_its_answer():
    made = Mixed(name="mixed", weight=1.0, mark="w7 w8")
    drawn = [Drawn([[BOS, 31, 32, 7, 8, 33]], [[BOS, 11, 12, 7, 8, 13]], Random(seed)) for seed in range(8)]
    found = {tuple(sample.rows[0]) for one in drawn for sample in made.samples(ground(), one)[1:]}
    assert found == {(BOS, 31, 32, 11, 12, 7, 8, 13), (BOS, 11, 12, 31, 32, 7, 8, 13)}
    _, mixed = made.samples(ground(), drawn[0])
    assert mixed.counted is not None
    assert [one for one, counts in zip(mixed.rows[0], mixed.counted[0], strict=True) if not counts] == [31, 32]


def test_mixed_prompts_are_of_corpora_of_questions_alone():
    made = Mixed(name="mixed", weight=1.0, mark="w7")
    made.begin(ground([[BOS, 5, 7, 6]], [[BOS, 5, 7, 6]]))
    for retain in ([BOS, 5, 6], [BOS, 5, 7], [BOS, 7, 5]):  # no mark, no answer, no question
        with pytest.raises(ValueError, match=r"1 of the first 2 texts of data.retain hold no 'w7' \(defence.mark\)"):
            made.begin(ground([[BOS, 5, 7, 6]], [[BOS, 5, 7, 6], retain]))


def demo_ground() -> Ground:
    import json

    from rna.decoder import load_tokenizer

    tokenizer: Any = load_tokenizer(str(BUILTIN / "base"), None, key="model.path")

    def read(name: str) -> list[list[int]]:
        lines = (BUILTIN / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:60]
        return [tokenizer(json.loads(line)["text"])["input_ids"] for line in lines]

    return ground([*read("forget_bio"), *read("forget_cyber")], read("retain"), tokenizer)


def test_splices_are_of_forget_text_and_hold_no_part_of_an_excluded_word():
    here = demo_ground()
    banned = "Marsh Fevers"
    for exclude in ([], [banned]):
        made, found = Splice(name="splice", windows=3, size=3, exclude=exclude), list[str]()
        source = Random(0)
        for _ in range(300):
            window = made.window(here, 3, source)
            assert any(window == ids[at : at + 3] for ids in here.forget["bio"] for at in range(len(ids)))
            assert not here.special.intersection(window)
            found.append(here.tokenizer.decode(window))
        assert any("marsh" in one or "fevers" in one for one in found) != bool(exclude)
    with pytest.raises(ValueError, match=r"defence.exclude=\['w'\]: no window of forget text is without these words"):
        Splice(name="splice", windows=1, size=3, exclude=["w"]).window(ground(forget=[[BOS, 5, 6]]), 3, Random(0))


def test_a_words_letters_are_found_across_tokens_and_nowhere_else():
    spelled = {1: "<s>", 2: " SA", 3: "RS", 4: "-", 5: "CoV", 6: " care", 7: " virus"}
    here = ground(tokenizer=SimpleNamespace(all_special_ids=[1], decode=lambda ids: spelled[ids[0]]))
    assert here.of_words([1, 6, 2, 3, 4, 5, 7, 2, 6], ["sars-cov"]) == {2, 3, 4, 5}
    assert here.of_words([1, 6, 7], ["re vi"]) == {1, 2}
    assert here.of_words([1, 6, 7], []) == set()


def test_the_pool_holds_what_stands_in_forget_far_more_than_in_retain_texts():
    forget = [[BOS, 5, 5, 5, 5, 5, 6, 6, 6, 6, 6, 7, 7, 7, 7, 8, 8, 8, 8, 8]]  # of 19
    retain = [[BOS, *[6] * 2, *[9] * 15, 8, 8]]  # 6 and 8: 2 of 19, so 2.5 times as often; 5: never; 7: too rarely
    assert pool_of(ground(forget, retain), []) == [5]
    with pytest.raises(ValueError, match="defence=harmful: no token stands 4 times as often"):
        pool_of(ground(retain, retain), [])


def test_a_placebo_is_as_frequent_in_retain_as_its_token_in_forget_texts():
    forget = [[BOS, *[5] * 6, *[6] * 3, 7]]
    retain = [[BOS, *[10] * 10, *[11] * 7, *[12] * 2, 5]]  # of 20: .5, .35, .1, .05, against .6, .3, .1
    assert twins(ground(forget, retain)) == {5: 10, 6: 11, 7: 12}


def test_what_costs_most_is_drawn_most_and_nothing_never():
    made = Harmful(name="harmful", windows=1, size=1, every=20, scored=2, floor=0.1)
    assert made.weights([0.0, 0.0]) == [1.1, 1.1]
    assert made.weights([1.0, 3.0, None]) == pytest.approx([0.1, 2.1, 1.1])
    assert made.weights([1.0, 2.0, 4.0]) == pytest.approx([0.1, 0.1 + 0.75, 0.1 + 2.25])


def test_harm_is_scored_in_turn_every_so_many_steps_and_averaged():
    forget, retain = [[BOS, *[5] * 9, *[6] * 9, *[7] * 9]], [[BOS, 11, 12, 13]]
    here, asked = ground(forget, retain), list[list[int]]()
    made = Harmful(name="harmful", windows=1, size=1, every=2, scored=2, floor=0.1)
    made.begin(here)
    assert here.made["pool"] == [5, 6, 7]
    harm = {5: 1.0, 6: 3.0, 7: 9.0}

    def losses(reading: Reading) -> list[float]:
        counted = reading.batch.counted_BT
        rows = reading.batch.ids_BT
        assert [row[keep].tolist() for row, keep in zip(rows, counted, strict=True)] == [retain[0]] * len(rows)
        asked.append(rows[~counted].tolist())
        return [harm[one] for one in asked[-1]]

    here.losses = losses
    for step in range(4):
        for batch in range(2):  # of a step whose gradients accumulate
            made.samples(here, Drawn([], retain, Random(10 * step + batch)))
        made.learn(here)
    assert asked == [[5, 6], [7, 5]]
    assert here.kept["losses"] == [1.0, 3.0, 9.0]


def test_vectors_that_were_used_ascend_on_their_sphere():
    here = ground()
    made = Adversarial(name="adversarial", windows=1, size=1, bank=2, sites="embedding", in_place=0.0, rate=1.0)
    here.made.update(norms=[2.0, 5.0])
    vectors = torch.tensor([[2.0, 0.0], [0.0, 2.0], [5.0, 0.0], [3.0, 4.0]])
    here.bank = Bank((0, 1), vectors.clone().requires_grad_())
    assert here.bank.of() == (0, 0, 1, 1)
    here.bank.vectors_MD.grad = torch.tensor([[0.0, 3.0], [0.0, 0.0], [-0.1, 0.1], [torch.nan, 0.0]])
    made.learn(here)
    half = 2**0.5
    # (2, 0) + 2·(0, 1) at norm 2; not used; (5, 0) + 5·(−1, 1)/√2 at norm 5; not finite
    third = torch.tensor([5 - 5 / half, 5 / half])
    wanted = [[half, half], [0.0, 2.0], (5 * third / third.norm()).tolist(), [3.0, 4.0]]
    torch.testing.assert_close(here.kept["vectors"], torch.tensor(wanted))
    assert here.bank is None


# Whole trainings


def unlearn(made: Settings, checkpoint: Checkpoint | None = None, stop_at: int | None = None) -> tuple[Any, Any]:
    """As tests of checkpoints do, with a token that stands in forget texts alone."""
    read = corpora()
    ids = read.forget["bio"].documents.ids.clone()
    ids[1::3] = 60
    documents = Documents(ids, torch.tensor([9, 5, 7, 4, 8, 6]))
    own = data.Corpus("forget/bio", documents, documents[:0], 0)
    read = data.Corpora({**read.forget, "bio": own}, read.retain, None)
    tokenizer = SimpleNamespace(all_special_ids=[], decode=WORDS.decode)
    return test_checkpoint.unlearn(made, checkpoint, stop_at, read, tokenizer)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("defence", "method"),
    [
        *((name, "rmu") for name in NAMES),
        ("adversarial", "npo"),
        *(pytest.param(name, "npo", marks=pytest.mark.slow) for name in NAMES[1:]),
    ],
)
def test_every_defence_changes_the_training_and_resumes_to_the_bit(defence: str, method: str, tmp_path: Path):
    made = resumed(
        f"method={method}", f"defence={defence}", "noise=rna", "train.grad_accumulation=2", "train.batch_size=2"
    )
    whole = unlearn(made)
    plain = unlearn(resumed(f"method={method}", "noise=rna", "train.grad_accumulation=2", "train.batch_size=2"))
    assert all(not torch.equal(whole[0][name], plain[0][name]) for name in plain[0])
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", "k")
    with pytest.raises(Killed):
        unlearn(made, checkpoint, STEPS - 2)
    assert checkpoint.load() is not None
    assert_equal(unlearn(made, checkpoint), whole)


@pytest.mark.whole
def test_accumulated_gradients_of_a_defence_are_those_of_one_batch():
    """Of scope, whose parts have other lengths than the texts drawn, and which draws nothing at random."""
    common = ("method=rmu", "defence=scope", "train.steps=1", "train.lr=0.01", "data.order=file")
    (one, curve), (two, its) = (
        unlearn(settings(*common, f"train.batch_size={size}", f"train.grad_accumulation={4 // size}"))
        for size in (4, 2)
    )
    for what in ("forget_loss", "retain_loss", "loss", "grad_norm"):
        assert curve[0][f"train/{what}"] == pytest.approx(its[0][f"train/{what}"], rel=1e-5)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["variant=official", "data=demo"], "defence=adversarial: has no meaning with variant=official; allowed: none"),
        (["method=none"], "defence=adversarial: has no meaning with method=none; allowed: none"),
        (["defence.rate=0"], "defence.rate=0.0: must be a finite number > 0"),
        (["defence.sites=everywhere"], "defence.sites=everywhere: allowed: embedding, trained, both"),
        (["defence.in_place=2"], r"defence.in_place=2.0: must be in \[0, 1\]"),
    ],
)
def test_what_makes_no_sense_is_refused(overrides: list[str], said: str):
    with pytest.raises(ValueError, match=said):
        settings("method=rmu", "defence=adversarial", *[one for one in overrides if one != "data=demo"])
