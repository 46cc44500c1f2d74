"""Whatever befalls the processes of a service, in any order: what is promised holds."""

import json
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from eventbus import deadletter
from eventbus.delivery import Reason
from tests.simulation.world import ATTEMPTS, DEEDS, Process, Told, World

DEADLY = ("crash",) * 12
SCRIPTS = st.lists(st.sampled_from(DEEDS), min_size=1, max_size=6).map(tuple)
SECONDS = st.sampled_from([1, 2, 5, 15, 50])
WHICH = st.integers(0, 2)
FAILS = frozenset({"fail", "later", "far"})


class Listening(RuleBasedStateMachine):
    """A listener in up to three processes, and all that can go wrong with them."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @rule(scripts=st.lists(SCRIPTS, min_size=1, max_size=3), innocent=st.integers(0, 4))
    def emit(self, scripts: list[tuple[str, ...]], innocent: int) -> None:
        """Emit events that do something, and some beside them that don't."""
        for script in [*scripts, *[()] * innocent]:
            self.world.emit(script)

    @precondition(lambda self: all(told.script != DEADLY for told in self.world.told.values()))
    @rule()
    def emit_what_kills(self) -> None:
        """Emit an event that ends its process each time."""
        self.world.emit(DEADLY)

    @rule()
    def lose_the_answer_to_an_emit(self) -> None:
        """Have the next emit be stored and not know it."""
        self.world.emits_lose = True

    @precondition(lambda self: self.world.unknown)
    @rule()
    def emit_again(self) -> None:
        """Emit again what isn't known to be stored."""
        self.world.emit_again()

    @rule(seconds=SECONDS)
    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.world.advance(seconds)

    @rule(seconds=SECONDS)
    def work(self, seconds: float) -> None:
        """Let go of the listeners that wait, and let time pass."""
        self.world.let_go()
        self.world.advance(seconds)

    @precondition(lambda self: len(self.world.processes) < 3)
    @rule()
    def start(self) -> None:
        """Start a process."""
        self.world.start()

    @rule(which=WHICH, anew=st.booleans())
    def stop(self, which: int, anew: bool) -> None:
        """Stop a process as a deploy does, with or without a new one in its place."""
        self.world.stop(self._process(which))
        if anew:
            self.world.start()

    def _process(self, which: int) -> Process:
        """Return one of the processes; there always is one to break."""
        if not self.world.processes:
            self.world.start()
        return self.world.processes[which % len(self.world.processes)]

    @invariant()
    def no_run_is_beyond_the_last_attempt(self) -> None:
        """An event has so many attempts, and none is skipped or forgotten."""
        for number, told in self.world.told.items():
            assert all(1 <= one <= ATTEMPTS for one in told.attempts), (number, told)
            if not told.is_disturbed:
                follows_its_script(told)

    @invariant()
    def each_emit_is_stored_once(self) -> None:
        """What was emitted is stored, however often it was emitted again."""
        messages = self.world.broker.messages()
        events = [one for one in messages if one.subject == "events.step.taken"]
        stored = Counter(json.loads(one.body)["number"] for one in events)
        assert stored == Counter(dict.fromkeys(self.world.told, 1))

    def teardown(self) -> None:
        """End all faults: then every event ended well, or says why it didn't."""
        try:
            self.world.heal()
            self.everything_has_ended()
        finally:
            self.world.close()

    def everything_has_ended(self) -> None:
        """Judge."""
        letters = [
            (json.loads(one.body)["number"], deadletter.read(one))
            for one in self.world.broker.dead_letters()
        ]
        for number, told in self.world.told.items():
            mine = [letter for which, letter in letters if which == number]
            assert told.effects or "discard" in told.deeds or mine, f"{number} is lost: {told}"
            for letter in mine:
                assert is_justified(letter, told), f"{number} is a dead letter: {letter} {told}"
            assert not told.effects or told.script != DEADLY, f"{number} isn't found: {told}"
            if not told.is_disturbed:
                follows_its_script(told)
                assert told.effects <= 1
                assert len(mine) == is_to_be_buried(told), (number, told)


class Faulty(Listening):
    """The same with faults."""

    @rule(which=WHICH)
    def kill(self, which: int) -> None:
        """Kill a process, and start another one in its place."""
        self.world.kill(self._process(which))
        self.world.start()

    @rule()
    def bury(self) -> None:
        """Clear away what its listener has killed."""
        self.world.bury()

    @rule(which=WHICH, seconds=SECONDS)
    def freeze(self, which: int, seconds: float) -> None:
        """Have a process stand still."""
        self.world.freeze(self._process(which))
        self.world.advance(seconds)

    @rule()
    def thaw(self) -> None:
        """Let go on what stands still."""
        for one in self.world.processes:
            self.world.thaw(one)

    @rule(which=WHICH, count=st.integers(1, 3))
    def lose_settlements(self, which: int, count: int) -> None:
        """Have settlements of a process get lost."""
        self.world.lose_settlements(self._process(which), count)

    @rule(fail=st.booleans())
    def turn_dead_letters(self, fail: bool) -> None:
        """Take the dead letters' stream away, or give it back."""
        self.world.letters_fail = fail


def follows_its_script(told: Told) -> None:
    """Check that each run was the next attempt, and that there was none after the last."""
    assert [attempt for attempt, _ in told.ended] == list(range(1, len(told.ended) + 1)), told
    assert all(deed in FAILS for deed in told.deeds[:-1]), told


def is_to_be_buried(told: Told) -> bool:
    """Tell whether what an undisturbed event did makes it a dead letter."""
    last = told.deeds[-1]
    return last == "reject" or (last in FAILS and len(told.ended) == ATTEMPTS)


def is_justified(letter: deadletter.Failure, told: Told) -> bool:
    """Tell whether an event did what its dead letter says."""
    failed = sum(deed in FAILS for deed in told.deeds)
    match letter.reason:
        case Reason.REJECTED:
            return "reject" in told.deeds
        case Reason.EXCEPTION:
            return failed > 0
        case Reason.CRASH:
            return failed + told.unended >= ATTEMPTS
        case _:
            return False


MANY = settings(max_examples=60, stateful_step_count=30)
TestListening = Listening.TestCase
TestListening.settings = MANY
TestListeningUnderFaults = Faulty.TestCase
TestListeningUnderFaults.settings = MANY
