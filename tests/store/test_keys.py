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
    "paper rmu+representation": ("d37633656fde7690", "4a14fcb9a1419056"),
    "paper adaptive_rmu+representation": ("067c54f0f610cf5d", "05c18d7d6bca619f"),
    "paper rsv+representation": ("4a865ed9009b9060", "8e03453163b9a93c"),
    "paper npo+mse": ("7104f7e7c22c8d4d", "b5d0acf504e3a3ce"),
    "paper npo+kl": ("02da60692d8bbe43", "2ab41fa94f18ac69"),
    "paper simnpo+mse": ("94f49ad6af4f31ea", "96f833d1509095e6"),
    "paper simnpo+kl": ("31b63baaab89a350", "ac81e631a3021aaf"),
    "paper dpo+mse": ("2fb18a7a65d72bdf", "be962e875f91769b"),
    "paper dpo+kl": ("cf52427dfa7cb5cf", "dcc563e2a616d101"),
    "official rmu+representation": ("cdbba28412654147", "3cb9703e32bd5c2e"),
    "official adaptive_rmu+representation": ("cf80e3f455a9e675", "dbdc4a04e5633c1f"),
    "official rsv+representation": ("8703b31ff7ebc5a4", "04d856151aa7d2b7"),
    "official npo+mse": ("354a2c76542c1641", "49b5bd065965ebb2"),
    "official npo+kl": ("7e1c83771aacbab2", "a659fcf4e43edebe"),
    "official simnpo+mse": ("7cd9574b366150d1", "e4e47c7cba69a85e"),
    "official simnpo+kl": ("77364a7cd91569d9", "75e3a8391f562354"),
    "official dpo+mse": ("c4ad888c77fc0d47", "d88c229d5a93c8aa"),
    "official dpo+kl": ("a1c9f165f00a9d0b", "d40badc6a59a935e"),
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
    assert results.train_key(results.train_identity(made)) == "e0e59821e34dd09d"
