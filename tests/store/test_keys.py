"""Keys that records have on users' disks: for settings that are said, they stay what they are.

A change here orphans every record that there is. Where numbers change, `NUMERICS` is raised, and these with it.
"""

import pytest

from rna import run
from rna.settings import config
from rna.store import results

COMMON = (
    "noise.nu=0.05 train.steps=100 train.lr=1e-4 train.eps=1e-8 train.batch_size=4 retain.alpha.default=2 seed=0"
).split()
NUMBERS = {
    "rmu": ["method.coefficient=6.5"],
    "adaptive_rmu": ["method.beta=3"],
    "rsv": ["method.coefficient=20"],
    "npo": ["method.beta=0.1", "method.log_prob=mean"],
    "simnpo": ["method.beta=0.1", "method.gamma=0"],
    "dpo": ["method.beta=0.1", "method.log_prob=mean"],
}
KEYS = {  # variant method+retain: TRAIN_KEY, and a digest of the keys of its evaluations
    "paper rmu+representation": ("996277e8523faebe", "42a00638b8c87373"),
    "paper adaptive_rmu+representation": ("9c3bf960da6e4a34", "ea46d5ab96b79e9c"),
    "paper rsv+representation": ("77969e1436fa37c4", "105a246ee37a5123"),
    "paper npo+mse": ("68f3ef42df878d36", "1add001ffc0ffca8"),
    "paper npo+kl": ("81658b996b02af68", "53b4983afa57f74d"),
    "paper simnpo+mse": ("fc5b21c9dcf88fa1", "df0b06403738d3a5"),
    "paper simnpo+kl": ("cc438f4e39c8dbcb", "087e9b44121b8552"),
    "paper dpo+mse": ("8c9884f24e4fb088", "8151310373ca8a6a"),
    "paper dpo+kl": ("00db5d9e1c4c7cba", "9bfa2c90eac989bd"),
    "official rmu+representation": ("3767cd01979cbe7a", "c16f910f94aee380"),
    "official adaptive_rmu+representation": ("ca3b16fe0d314e39", "77e814805ff63bc4"),
    "official rsv+representation": ("2194aef466bd15f7", "d0be445e7b02fe72"),
    "official npo+mse": ("6289a7c6ba5f4186", "f5872c073d696c0e"),
    "official npo+kl": ("4b800ecf9ee7a7a0", "697ae4e9109a9fdc"),
    "official simnpo+mse": ("4d92c2166cf99c04", "156e28f3fa044dc6"),
    "official simnpo+kl": ("b372aed0e52872bd", "273f1f8523ff7cd3"),
    "official dpo+mse": ("6e8f40e8c46a7c66", "c45db84f7517237a"),
    "official dpo+kl": ("2fb09dd985977c26", "44c6ec01765aa8fe"),
}


@pytest.mark.whole
@pytest.mark.parametrize("row", KEYS)
def test_the_demos_trials_and_their_evaluations_keep_their_keys(row: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(results, "version", lambda _package: "0.4.13")  # lm-eval's, which an evaluation depends on
    variant, _, name = row.partition(" ")
    method, _, retain = name.partition("+")
    words = [f"method={method}", f"retain={retain}", *NUMBERS[method], *COMMON, f"variant={variant}"]
    made = config.check(run.compose(words, None))
    key = results.train_key(results.train_identity(made))
    evaluations = sorted(results.eval_key(key, task) for task in results.task_identities(made).values())
    assert (key, results.digest(evaluations)) == KEYS[row]


def test_the_base_keeps_its_key():
    made = config.check(run.compose(["method=none"], None))
    assert results.train_key(results.train_identity(made)) == "e7ecb9413fdef35f"
