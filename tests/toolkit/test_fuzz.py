"""A small helping of ``make fuzz``, with every target."""

import sys

import mutants
import pytest
from targets import TARGETS


@pytest.mark.skipif(sys.platform == "win32", reason="an open temporary file cannot be opened again there")
@pytest.mark.parametrize("name", TARGETS)
def test_mutants_raise_nothing_but_our_errors(name: str):
    target = TARGETS[name]
    seeds = target.seeds()
    for number in range(1, 11 if name in ("session", "index") else 151):
        target.call(target.mutate(seeds, number))


def test_the_same_number_gives_the_same_mutant():
    seeds = mutants.images()
    assert mutants.mutant(seeds, 7) == mutants.mutant(seeds, 7) != mutants.mutant(seeds, 8)
