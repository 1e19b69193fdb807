"""The faults that are planted by hand still have a place to be planted in."""

import pytest

from tests.mutate_faults import FAULTS
from tests.mutated import ROOT


@pytest.mark.parametrize("name", FAULTS)
def test_what_a_fault_replaces_stands_there_once(name: str):
    file, there, _ = FAULTS[name]
    assert (ROOT / file).read_text(encoding="utf-8").count(there) == 1
