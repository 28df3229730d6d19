"""Two processes on one store: one makes, the other waits; no file is torn."""

import multiprocessing
import random
import time

import pytest
from homes import contents, leftovers
from stages import STAGES, STEPS, Stage, read_diary

from clsp_utils.store import replace_file


@pytest.mark.item("4 two at once", "same stage")
@pytest.mark.parametrize("name", STAGES)
@pytest.mark.rounds(short=1, long=5)
def test_one_makes_and_the_other_waits(reference, place, name, round):
    home = reference.before_stage(name, place)
    first = Stage(name, home)
    time.sleep(random.Random(f"two {name} {round}").random() * 0.3)
    second = Stage(name, home)
    assert first.wait() == second.wait() == 0, first.said()
    assert contents(home) == reference.after[name] and not leftovers(home)
    done = [what for _, what, _, _ in read_diary(home) if what != "from"]
    assert len(done) == STEPS.get(name, 0), "nothing is done twice"


@pytest.mark.item("4 two at once", "different stages")
@pytest.mark.rounds(short=1, long=5)
def test_what_both_need_is_made_once(reference, place, round):
    home = reference.before_stage("diffusion", place)  # nothing at all
    runs = [
        Stage(name, home)
        for name in (("pretraining", "candidates"), ("evaluation", "pretraining"))[round % 2]
    ]
    assert [run.wait() for run in runs] == [0, 0], runs[0].said()
    last = ("pretraining", "evaluation")[round % 2]
    assert contents(home) == reference.after[last] and not leftovers(home)
    assert sum(what != "from" for _, what, _, _ in read_diary(home)) == sum(STEPS.values())


@pytest.mark.item("4 two at once", "owner dies")
@pytest.mark.parametrize("name", ["diffusion", "pretraining"])
@pytest.mark.rounds(short=1, long=5)
def test_the_lock_of_a_dead_owner_is_taken_over(reference, place, name, round):
    home = reference.before_stage(name, place)
    owner = Stage(name, home)
    while not any(what == "step" for _, what, _, _ in read_diary(home)):
        assert owner.process.is_alive(), owner.said()
    heir = Stage(name, home)
    time.sleep(random.Random(f"heir {name} {round}").uniform(0.1, 0.5) * reference.seconds[name])
    owner.kill()
    assert heir.wait() == 0, heir.said()
    assert contents(home) == reference.after[name] and not leftovers(home)


def _write_again_and_again(path, letter, begun):
    begun.wait()  # on a busy machine the one would be done before the other is there
    until = time.time() + 2
    while time.time() < until:
        replace_file(path, letter * 100_000)


@pytest.mark.item("4 two at once", "same figure")
@pytest.mark.rounds(short=1, long=5)
def test_file_that_two_write_is_never_torn(tmp_path, round):
    path = tmp_path / "figure.png"
    replace_file(path, b"a" * 100_000)
    context = multiprocessing.get_context("forkserver")
    begun = context.Barrier(2)
    writers = [
        context.Process(target=_write_again_and_again, args=(path, letter, begun))
        for letter in (b"a", b"b")
    ]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        blob = path.read_bytes()
        assert len(blob) == 100_000 and len(set(blob)) == 1
        seen.add(blob[:1])
    assert seen == {b"a", b"b"} and [*tmp_path.iterdir()] == [path]
