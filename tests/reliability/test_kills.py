"""SIGKILL at random moments: the next run ends with the same bits, and little is done twice."""

import inspect
import itertools
import random
import time

import pytest
from homes import contents, leftovers
from stages import EVERY, STAGES, STEPS, Stage, die_at, read_diary

from clsp_utils.runtime import Checkpoint


def kill_at_random(name, home_of, seconds, draw, **options):
    """Starts the stage and kills it somewhere; again, and earlier, if it was done by then."""
    for attempt in itertools.count():
        home = home_of(attempt)
        stage = Stage(name, home, **options)
        time.sleep(draw.random() * seconds / 1.5**attempt)
        moment = stage.kill()
        if stage.process.exitcode == -9:
            break
    return home, moment


def finish(reference, name, home, **options):
    """Runs the stage to its end; all of it must equal the unbroken run's."""
    rerun = Stage(name, home, **options)
    assert rerun.wait() == 0, rerun.said()
    assert "damaged" not in rerun.said(), "a kill damages nothing"
    assert contents(home) == reference.after[name]
    assert not leftovers(home)


def redone(home, killed, name):
    """What a training stage does again after a kill: seconds, and the most that it may.

    Seconds are those from the last checkpoint to the kill; the interval may be exceeded by the step
    and the saving in which it ends.
    """
    diary = read_diary(home)
    sessions = [i for i, (_, what, _, _) in enumerate(diary) if what == "from"]
    if len(sessions) < 2:
        return 0.0, 0.0  # it was killed before the stage began
    first = diary[sessions[-2] : sessions[-1]]
    resumed = diary[sessions[-1]][3]
    moments = {number: moment for moment, what, _, number in first if what == "step"}
    saved = moments[resumed - 1] if resumed - 1 in moments else first[0][0]
    marks = [entry[0] for entry in first] + [killed]
    return killed - saved, EVERY + 2 * max(b - a for a, b in itertools.pairwise(marks))


@pytest.mark.item("1 kills")
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.rounds(short=2, long=20)
def test_killed_stage_goes_on_to_the_same_end(reference, tmp_path, stage, round, record_property):
    draw = random.Random(f"{stage} {round}")
    home, moment = kill_at_random(
        stage,
        lambda attempt: reference.before_stage(stage, tmp_path / str(attempt)),
        reference.seconds[stage],
        draw,
    )
    finish(reference, stage, home)
    if stage == "candidates":
        done = sum(what == "batch" for _, what, _, _ in read_diary(home))
        record_property("redone_batches_of_16", done - STEPS[stage])
        assert done - STEPS[stage] <= 1
    elif stage == "evaluation":
        record_property("stage_seconds", round_up(reference.seconds[stage]))
        assert reference.seconds[stage] < 30, "it is done again as a whole"
    else:
        seconds, most = redone(home, moment, stage)
        record_property("redone_seconds", round_up(seconds))
        record_property("interval_seconds", EVERY)
        assert seconds <= most


def round_up(seconds):
    return round(seconds + 0.005, 2)


@pytest.mark.item("1 kills")
@pytest.mark.parametrize("stage", ["pretraining"])
@pytest.mark.rounds(short=0, long=2)
def test_stage_that_is_killed_again_and_again_ends(reference, place, stage, round):
    """Each session is given half the time that the stage takes: it must get on all the same."""
    home = reference.before_stage(stage, place)
    draw = random.Random(f"again {round}")
    for _ in range(6):
        killed = Stage(stage, home)
        time.sleep(draw.uniform(0.3, 0.6) * reference.seconds[stage])
        killed.kill()
        if killed.process.exitcode == 0:
            break
    finish(reference, stage, home)


@pytest.mark.item("1 kills", "at each call that changes the disk")
@pytest.mark.parametrize("name", ["diffusion", "candidates"])
@pytest.mark.rounds(short=2, long=15)
def test_killed_between_any_two_calls(reference, place, tmp_path, name, round, request):
    """Not random: the windows between writing, renaming and removing are too short to be hit."""
    counted = reference.before_stage(name, tmp_path / "counted")
    assert Stage(name, counted, die_at, (-1, tmp_path / "count")).wait() == 0
    total = int((tmp_path / "count").read_text())
    rounds = request.node.get_closest_marker("rounds").kwargs[request.config.getoption("--rounds")]
    # Most calls are checkpoints; the last ten are those that end a stage.
    last = total - 1 - (rounds - 1 - round)
    point = last if round % 2 else round * total // rounds
    home = reference.before_stage(name, place)
    killed = Stage(name, home, die_at, (point,))
    assert killed.wait() == -9, killed.said()
    finish(reference, name, home)
    if name == "candidates":
        done = sum(what == "batch" for _, what, _, _ in read_diary(home))
        assert done - STEPS[name] <= 1, "a bank that is all but finished is not made anew"


@pytest.mark.item("1 kills", "candidates in two processes")
@pytest.mark.rounds(short=0, long=4)
def test_bank_of_two_workers(reference, tmp_path, round):
    """The workers end with the process that they work for, and the bank is the same."""
    stage, draw = "candidates", random.Random(f"workers {round}")
    home, _ = kill_at_random(
        stage,
        lambda attempt: reference.before_stage(stage, tmp_path / str(attempt)),
        8,
        draw,
        threads=2,
    )
    finish(reference, stage, home, threads=2 if round % 2 else 1)


def test_default_interval_is_half_a_minute_at_most():
    assert inspect.signature(Checkpoint).parameters["every"].default <= 30
