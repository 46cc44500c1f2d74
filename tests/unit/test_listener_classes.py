"""Listeners that are classes: what is read from one, what builds it, and what it collects."""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Annotated, Any, ClassVar

import pytest
from dishka import Provider, Scope, make_async_container
from fastapi import Depends

from eventbus import Context, Event, EventMap, EventService, Listener, Retry
from eventbus.containers import built_by, from_dishka, with_depends
from eventbus.drivers.memory import MemoryDriver
from eventbus.errors import DeclarationError, DuplicateSubscriptionError
from eventbus.listener import Resolver
from eventbus.roster import Roster
from eventbus.settings import Settings
from eventbus.telemetry.signals import Happened, Settled


class UserCreated(Event, name="user.created"):
    user_id: str


class UserWelcomed(Event, name="user.welcomed"):
    user_id: str


class MailSent(Event, name="mail.sent"):
    to: str


class Mailer:
    def __init__(self) -> None:
        self.sent: list[str] = []


class Welcome(Listener[UserCreated]):
    options: ClassVar[Mapping[str, object]] = {"retry": Retry(attempts=1), "queue": "emails"}

    def __init__(self, mailer: Mailer) -> None:
        self.mailer = mailer

    async def handle(self, event: UserCreated) -> None:
        self.mailer.sent.append(f"{event.user_id} {self.context.attempt}")
        self.events.append(UserWelcomed(user_id=event.user_id), tags=("vip",))
        self.events.collect(MailSent(to=event.user_id))
        if event.user_id == "bad":
            raise ValueError

    async def failed(self, event: UserCreated, error: Exception) -> None:
        self.events.append(MailSent(to=f"{type(error).__name__} {self.context.id}"))


class Bus:
    """A service in memory, what it emitted, and how its deliveries ended."""

    def __init__(self, resolver: Resolver | None = None) -> None:
        self.driver = MemoryDriver()
        self.ends: list[str] = []
        self.service = EventService(
            "mail",
            settings=Settings(),
            driver=self.driver,
            container=resolver,
            observers=[self._observe],
        )

    def _observe(self, happened: Happened) -> None:
        if isinstance(happened, Settled):
            self.ends.append(happened.outcome.value)

    async def run(self, *users: str) -> list[tuple[str, str, str]]:
        """Emit users, wait until all is handled, and return name, body and cause of the rest."""
        self.service.subscribe(UserWelcomed, name="seen")(self._seen)
        async with self.service, self.service.track() as tracked:
            for one in users:
                receipt = await self.service.emit(UserCreated(user_id=one), id=f"id-{one}")
                assert receipt.id
            del tracked
        return [
            (one.headers["ce-type"], one.body.decode(), one.headers.get("ce-causationid", ""))
            for one in self.driver.broker.messages()
            if one.headers["ce-type"] != "user.created"
        ]

    async def _seen(self, event: UserWelcomed, context: Context) -> None:
        assert context.tags == ("vip",)


EXPECTED = [
    ("user.welcomed", '{"user_id":"ada"}', "id-ada"),
    ("mail.sent", '{"to":"ada"}', "id-ada"),
]


async def test_what_it_collects_is_emitted_once_it_has_succeeded() -> None:
    mailer = Mailer()
    bus = Bus(built_by(lambda listener: listener(mailer)))  # type: ignore[call-arg]
    bus.service.subscribe(UserCreated, Welcome)

    assert await bus.run("ada") == EXPECTED
    assert mailer.sent == ["ada 1"]


async def test_nothing_of_a_run_that_failed_is_emitted_but_what_failed_collects() -> None:
    bus = Bus(built_by(lambda _: Welcome(Mailer())))
    bus.service.subscribe(UserCreated, Welcome)

    assert await bus.run("bad") == [("mail.sent", '{"to":"ValueError id-bad"}', "id-bad")]
    assert bus.ends == ["dead"]


def declared(listener: Any, target: Any = UserCreated, **options: Any) -> Any:
    return Roster("mail").declare(target, listener, options)


def test_its_name_options_and_event_are_read_from_the_class() -> None:
    one = declared(Welcome, "user.*", concurrency=3)

    assert (one.listener, one.queue, one.retry) == ("Welcome", "emails", Retry(attempts=1))
    assert (one.accepts, one.concurrency) == ((UserCreated,), 3)
    assert one.failed is not None


def test_options_that_are_given_win_over_those_of_the_class() -> None:
    one = declared(Welcome, queue="slow", name="greet")

    assert (one.listener, one.queue) == ("greet", "slow")


def test_the_event_of_a_class_without_annotations_is_that_of_its_base() -> None:
    class Base(Listener[UserCreated]): ...

    class Bare(Base):
        async def handle(self, event) -> None: ...  # type: ignore[no-untyped-def]

    assert declared(Bare, "user.*").accepts == (UserCreated,)
    assert declared(Bare).failed is None


def test_a_class_for_another_event_is_refused() -> None:
    with pytest.raises(DeclarationError, match="takes UserCreated, but is subscribed to MailSent"):
        declared(Welcome, MailSent)


def test_a_class_that_does_not_say_how_to_handle_is_refused() -> None:
    class Nothing(Listener[UserCreated]): ...

    class Blocking(Listener[UserCreated]):
        def handle(self, event: UserCreated) -> None: ...  # type: ignore[override]

    class Odd(Listener[UserCreated]):
        async def handle(self) -> None: ...  # type: ignore[override]

    for one in (Nothing, Blocking):
        with pytest.raises(DeclarationError, match="needs 'async def handle"):
            declared(one)
    with pytest.raises(DeclarationError, match=r"must take \(self, event\)"):
        declared(Odd)


def test_a_misspelt_option_of_a_class_is_refused() -> None:
    class Odd(Welcome):
        options: ClassVar[Mapping[str, object]] = {"queu": "emails"}

    with pytest.raises(DeclarationError, match="no option 'queu'; did you mean 'queue'"):
        declared(Odd)


async def test_a_test_may_call_handle_and_see_what_it_collects() -> None:
    class Quiet(Listener[UserCreated]):
        async def handle(self, event: UserCreated) -> None:
            self.events.append(MailSent(to=event.user_id))

    one = Quiet()
    await one.handle(UserCreated(user_id="ada"))

    assert (list(one.events), len(one.events)) == ([MailSent(to="ada")], 1)
    with pytest.raises(RuntimeError, match="only while it handles"):
        _ = one.context


def test_a_class_works_as_a_decorated_one_too() -> None:
    events = EventService("mail", settings=Settings())

    @events.subscribe(UserCreated)
    class Greet(Listener[UserCreated]):
        async def handle(self, event: UserCreated) -> None: ...

    assert [one.listener for one in events.subscriptions] == ["Greet"]
    assert Greet().options == {}


# Containers ------------------------------------------------------------------------------------


async def test_dishka_builds_it_in_a_scope_of_its_own_for_each_run() -> None:
    journal: list[str] = []

    class Session:
        def __init__(self, context: Context) -> None:
            self.id = context.id

    async def session(context: Context) -> AsyncIterator[Session]:
        one = Session(context)
        journal.append(f"open {one.id}")
        yield one
        journal.append(f"close {one.id}")

    class Save(Listener[UserCreated]):
        def __init__(self, session: Session) -> None:
            self.session = session

        async def handle(self, event: UserCreated) -> None:
            journal.append(f"save {event.user_id} in {self.session.id}")
            self.events.append(MailSent(to=event.user_id))

    provider = Provider(scope=Scope.REQUEST)
    provider.from_context(Context)
    session.__annotations__ = {"context": Context, "return": AsyncIterator[Session]}
    Save.__init__.__annotations__ = {"session": Session, "return": None}
    provider.provide(session)
    provider.provide(Save)
    container = make_async_container(provider)
    bus = Bus(from_dishka(container))
    bus.service.subscribe(UserCreated, Save)

    emitted = await bus.run("ada", "bob")
    await container.close()

    assert sorted(name for name, _, _ in emitted) == ["mail.sent", "mail.sent"]
    assert sorted(journal) == sorted(
        line
        for one in ("ada", "bob")
        for line in (f"open id-{one}", f"save {one} in id-{one}", f"close id-{one}")
    )


JOURNAL: list[str] = []


async def settings() -> str:
    JOURNAL.append("settings")
    return "smtp"


def connection(server: Annotated[str, Depends(settings)]) -> Iterator[str]:
    JOURNAL.append(f"open {server}")
    yield f"line to {server}"
    JOURNAL.append("close")


async def outbox(
    line: Annotated[str, Depends(connection)], server: str = Depends(settings)
) -> AsyncIterator[str]:
    yield f"{line}, {server}"
    JOURNAL.append("flush")


class Post(Listener[UserCreated]):
    def __init__(
        self,
        context: Context,
        box: Annotated[str, Depends(outbox)],
        mailer: Annotated[Mailer, Depends()],
        again: str = Depends(connection, use_cache=False),
        retries: int = 3,
    ) -> None:
        self.parts = (context.id, box, mailer.sent, again, retries)

    async def handle(self, event: UserCreated) -> None:
        JOURNAL.append(f"handle {self.parts}")


async def test_depends_builds_it_and_ends_what_it_needed() -> None:
    JOURNAL.clear()
    bus = Bus(with_depends())
    bus.service.subscribe(UserCreated, Post)

    await bus.run("ada")

    assert JOURNAL == [
        "settings",
        "open smtp",
        "open smtp",
        "handle ('id-ada', 'line to smtp, smtp', [], 'line to smtp', 3)",
        "close",
        "flush",
        "close",
    ]


async def test_a_test_may_put_something_else_in_the_place_of_what_it_depends_on() -> None:
    JOURNAL.clear()
    bus = Bus(with_depends({connection: lambda: "no line", outbox: lambda: "no box"}))
    bus.service.subscribe(UserCreated, Post)

    await bus.run("ada")

    assert JOURNAL == ["handle ('id-ada', 'no box', [], 'no line', 3)"]


async def test_a_parameter_that_nothing_speaks_of_fails_the_run_with_its_name() -> None:
    class Odd(Listener[UserCreated]):
        options: ClassVar[Mapping[str, object]] = {"retry": Retry(attempts=1)}

        def __init__(self, mystery: Mailer) -> None: ...

        async def handle(self, event: UserCreated) -> None: ...

    bus = Bus(with_depends())
    bus.service.subscribe(UserCreated, Odd)

    await bus.run("ada")

    assert bus.ends == ["dead"]


# Event map -------------------------------------------------------------------------------------


async def note(event: Event) -> None: ...


def test_a_map_binds_several_handlers_and_patterns() -> None:
    event_map = EventMap().bind(UserCreated, [Welcome, note]).bind("mail.*", note, name="audit")
    events = EventService("mail", settings=Settings())

    events.include(event_map)

    assert [(one.listener, one.events) for one in events.subscriptions] == [
        ("Welcome", ("user.created",)),
        ("note", ("user.created",)),
        ("audit", ("mail.*",)),
    ]
    assert len(list(event_map)) == 3


def test_a_map_that_binds_one_name_twice_is_refused_when_it_is_included() -> None:
    events = EventService("mail", settings=Settings())

    with pytest.raises(DuplicateSubscriptionError):
        events.include(EventMap().bind(UserCreated, note).bind(MailSent, note))


def test_a_binding_without_a_handler_or_with_one_name_for_several_is_refused() -> None:
    with pytest.raises(DeclarationError, match="needs a handler"):
        EventMap().bind(UserCreated, [])
    with pytest.raises(DeclarationError, match="for one alone"):
        EventMap().bind(UserCreated, [Welcome, note], name="both")
