from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from natsync import nuid
from natsync.nuid import Nuid, next_nuid, reseed


def test_form():
    assert re.fullmatch("[0-9A-Za-z]{22}", next_nuid())


def test_never_the_same_twice():
    assert len({next_nuid() for _ in range(20_000)}) == 20_000


def test_never_the_same_twice_in_many_threads():
    with ThreadPoolExecutor(8) as pool:
        names = [name for made in pool.map(lambda _: [next_nuid() for _ in range(2000)], range(8)) for name in made]
    assert len(set(names)) == len(names)


def test_one_prefix_until_the_counter_is_used_up():
    generator = Nuid()
    generator._counter = 0
    first, second = generator.next(), generator.next()
    assert first[:12] == second[:12]
    assert first < second
    generator._counter = nuid._COUNTER_END - generator._step - 1
    last = generator.next()
    assert last == first[:12] + "z" * 10
    after = generator.next()
    assert after[:12] != first[:12]
    assert 0 <= generator._counter < nuid._COUNTER_END


def test_counts_in_base_62():
    generator = Nuid()
    generator._counter, generator._step = 0, 62
    assert generator.next()[12:] == "0000000010"


def test_reseed_draws_anew_and_frees_the_lock():
    before, generator = next_nuid(), nuid._generator
    with generator._lock:
        reseed()
        assert next_nuid()[:12] != before[:12]


@pytest.mark.fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_child_makes_other_names():
    before = next_nuid()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, next_nuid().encode())
        os._exit(0)
    os.close(writer)
    made = os.read(reader, 100).decode()
    os.close(reader)
    assert os.waitpid(child, 0)[1] == 0
    assert len(made) == 22
    assert made[:12] != before[:12] == next_nuid()[:12]
