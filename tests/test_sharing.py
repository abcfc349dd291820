"""The protocol by which pairs move between processes, with beats that interleave and processes that end anywhere."""

import itertools
from collections.abc import Iterator
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.members import Member
from collector.sharing import Handover, View

PAIRS = frozenset({"BTC/USD", "ETH/USD", "SOL/USD", "ADA/USD"})
SETTLED_AFTER = 12  # whole beats of everybody, in which whatever was begun is over
thorough = settings(max_examples=300)

ORDERLY = st.tuples(st.sampled_from(["step", "step", "step", "subscribe", "start", "hand over"]), st.integers(0, 2))
ANYTHING = st.tuples(
    st.sampled_from(["step", "step", "step", "subscribe", "start", "stop", "kill", "lose session", "reach"]),
    st.integers(0, 3),
)


class SessionLost(Exception):  # noqa: N818 - named by what happened
    """The process has to open another session."""


class Database:
    """What PostgreSQL keeps: locks by session, members by theirs, and handovers."""

    def __init__(self) -> None:
        self.sessions: set[int] = set()
        self.locks: dict[str, int] = {}
        self.members: dict[UUID, tuple[Member, int]] = {}
        self.handovers: dict[str, Handover] = {}
        self._numbers = itertools.count(1)

    def open(self) -> int:
        number = next(self._numbers)
        self.sessions.add(number)
        return number

    def end(self, session: int) -> None:
        self.sessions.discard(session)
        self.locks = {pair: holder for pair, holder in self.locks.items() if holder != session}

    def living(self) -> dict[UUID, Member]:
        return {identity: member for identity, (member, session) in self.members.items() if session in self.sessions}


class Process:
    """One process: it does one call to the database at a step."""

    def __init__(self, database: Database, number: int) -> None:
        self.identity = UUID(int=number)
        self.is_there = self.is_available = True
        self.stops = False
        self.collecting: frozenset[str] = frozenset()
        self.collected: frozenset[str] = frozenset()
        self.held: set[str] = set()
        self.session = 0
        self._database = database
        self._beats = self._run()

    def step(self) -> None:
        if self.is_there:
            next(self._beats)

    def subscribe(self) -> None:
        if self.is_there:
            self.collected = self.collecting

    def end(self) -> None:
        self.is_there = False
        self.collecting = self.collected = frozenset()
        self._database.end(self.session)

    def _run(self) -> Iterator[None]:
        while True:
            self.session, self.held = self._database.open(), set()
            try:
                while True:
                    yield from self._beat()
            except SessionLost:
                yield

    def _connected(self) -> Database:
        if self.session not in self._database.sessions:
            raise SessionLost
        return self._database

    def _beat(self) -> Iterator[None]:
        database, leaves = self._connected(), self.stops
        member = Member(self.identity, ("*",), self.is_available and not leaves)
        database.members[self.identity] = member, self.session
        living = database.living()
        handovers = [
            handover
            for handover in database.handovers.values()
            if self.identity in (handover.giver, handover.taker) and handover.giver in living
        ]
        view = View(self.identity, PAIRS, living.values(), handovers)
        yield
        database = self._connected()
        for pair in view.to_lock(self.held, self.collecting, claims=True):
            if database.locks.setdefault(pair, self.session) == self.session:
                self.held.add(pair)
        plan = view.plan(self.held, self.collected)
        self.collecting = plan.collect
        self.collected &= plan.collect
        yield
        database = self._connected()
        for pair in plan.release:
            del database.locks[pair]
            self.held.remove(pair)
        yield
        database = self._connected()
        if plan.offers != view.offers:
            kept = {pair: of for pair, of in database.handovers.items() if of.giver != self.identity}
            standing = {pair: of for pair, of in database.handovers.items() if of.giver == self.identity}
            for pair, taker in plan.offers.items():
                same = pair in standing and standing[pair].taker == taker
                kept[pair] = standing[pair] if same else Handover(pair, self.identity, taker, is_taken=False)
            database.handovers = kept
        yield
        database = self._connected()
        for pair in plan.take:
            if pair in database.handovers and database.handovers[pair].taker == self.identity:
                database.handovers[pair] = database.handovers[pair]._replace(is_taken=True)
        yield
        database = self._connected()
        if leaves and plan.is_over:
            database.handovers = {
                pair: handover for pair, handover in database.handovers.items() if handover.giver != self.identity
            }
            del database.members[self.identity]
            self.end()
            yield


class World:
    """Some processes, of which each is started at some time."""

    def __init__(self) -> None:
        self.database = Database()
        self.processes: dict[int, Process] = {}

    def act(self, action: str, number: int) -> None:
        if action == "start":
            self.processes.setdefault(number, Process(self.database, number))
        elif number in self.processes:
            self._act_on(self.processes[number], action)

    def _act_on(self, process: Process, action: str) -> None:
        match action:
            case "step":
                process.step()
            case "subscribe":
                process.subscribe()
            case "stop":
                process.stops = True
            case "hand over":  # to one that has said that it is there; who stops before that leaves a hole
                process.stops |= all(of.identity in self.database.members for of in self.there)
            case "kill":
                process.end()
            case "lose session":
                self.database.end(process.session)
            case "reach":
                process.is_available = not process.is_available

    def settle(self) -> None:
        for _ in range(SETTLED_AFTER * 6):
            for process in self.processes.values():
                process.step()
                process.subscribe()

    @property
    def there(self) -> list[Process]:
        return [process for process in self.processes.values() if process.is_there]

    @property
    def collected(self) -> set[str]:
        return {pair for process in self.there for pair in process.collected}


@thorough
@given(st.lists(ANYTHING, max_size=120))
def test_each_pair_ends_up_with_one(actions: list[tuple[str, int]]) -> None:
    """Prevents a pair from being left to nobody, or to two, by processes that end at any point of a handover."""
    world = World()
    world.act("start", 0)
    for action, number in actions:
        world.act(action, number)
    world.settle()
    staying = [process for process in world.there if not process.stops]
    if not staying:
        return
    assert world.there == staying
    for pair in PAIRS:
        (collector,) = [process for process in staying if pair in process.collected]
        assert world.database.locks[pair] == collector.session
    living = world.database.living()
    assert not [handover for handover in world.database.handovers.values() if handover.giver in living]


@thorough
@given(st.lists(ORDERLY, max_size=200))
def test_orderly_moves_leave_no_hole(actions: list[tuple[str, int]]) -> None:
    """Prevents a pair from being collected by nobody for a moment while one of two processes comes or stops."""
    world = World()
    world.act("start", 0)
    world.settle()
    for action, number in actions:
        world.act(action, number)
        if any(not process.stops for process in world.there):
            assert world.collected == PAIRS
        else:
            return


@pytest.mark.parametrize("has_taken", [False, True])
def test_one_that_is_gone_offers_nothing(*, has_taken: bool) -> None:
    """Prevents a pair from being collected by two for ever: by the taker that a dead giver left, and by its holder."""
    world = World()
    for number in (0, 1):
        world.act("start", number)
        world.settle()
    giver, taker = (world.processes[number] for number in (0, 1))
    pair = min(taker.collected)
    stale = Handover(pair, UUID(int=9), giver.identity, has_taken)
    world.database.handovers[pair] = stale
    world.settle()
    assert pair not in giver.collected
    assert pair in taker.collected
