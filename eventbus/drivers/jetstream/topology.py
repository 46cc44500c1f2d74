"""`Topology`: brings streams and durables on the server to what is declared, or says what differs.

What is declared stands in `streams` and `durables`, how it is compared in `drift`, and what may
be done about it in `provision`.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from eventbus.drivers.base import ConsumerSpec, Notify, Start
from eventbus.drivers.jetstream import api as codes
from eventbus.drivers.jetstream import durables, streams
from eventbus.drivers.jetstream.api import Api, ApiError, Table, number, table, text, translated
from eventbus.drivers.jetstream.drift import OWNER, edited, merged, owner_of
from eventbus.drivers.jetstream.provision import Permit, all_at_once, caught, raise_all
from eventbus.drivers.jetstream.streams import ServerInfo
from eventbus.errors import DriverError, EventBusError, NoJetStreamError, TopologyError
from eventbus.settings import Settings
from eventbus.subject import covers

__all__ = ("ServerInfo", "Topology")

LOOKERS = 8
LOOK_PAUSE = 0.05
"""Each turn lasts at least so many seconds: a process looks after 160 durables in a second."""


class Topology:
    """Streams and durables of one namespace, by the provisioning mode of the settings.

    ``auto`` creates what is missing and applies what takes nothing away, ``check`` refuses any
    difference, ``off`` asks and touches nothing. Doing it again changes nothing, and several
    services may do it at once.
    Everything here raises `DriverError` where the server can't be asked now.
    """

    def __init__(self, api: Api, settings: Settings, notify: Notify) -> None:
        self._api = api
        self._settings = settings
        self._subjects = settings.subjects
        self._permit = Permit(settings.provision, notify)
        self._level: int | None = None
        self._lookers = asyncio.Semaphore(LOOKERS)

    async def ensure_server(self) -> ServerInfo:
        """Return what the server can do; in mode ``off`` nobody asks.

        Raises:
            NoJetStreamError: The server or the account has no JetStream.
            ServerTooOldError: It lacks what the bus can't do without.
        """
        if self._permit.mode == "off":
            return streams.NOT_ASKED
        with translated("account"):
            try:
                # Soon again: a cluster that is electing its leader doesn't answer.
                answer = await self._api.call("INFO", timeout=2.0)
            except ApiError as exc:
                if exc.err_code in codes.NO_JETSTREAM:
                    raise NoJetStreamError(server=_hosts(self._settings)) from exc
                raise
        info = streams.negotiated(number(table(answer.get("api")).get("level")))
        self._level = info.level
        return info

    async def ensure_streams(self) -> None:
        """Create, compare or check the streams.

        Raises:
            TopologyError: One is missing, differs, is somebody else's, or overlaps with one.
                It names everything that is wrong, not only the first thing.
            NoJetStreamError, ServerTooOldError: As `ensure_server`, where it wasn't called.
        """
        if self._permit.mode == "off":
            return
        if self._level is None:
            await self.ensure_server()
        declared = streams.declared_streams(self._settings, self._level or 0)
        found = await all_at_once(self._stream, [text(one["name"]) for one in declared])
        results: list[EventBusError | None] = []
        # One after the other: a stream must exist before another one sources from it.
        for wanted, have in zip(declared, found, strict=True):
            if isinstance(have, EventBusError):
                results.append(have)
            else:
                results.append(await caught(self._ensure_stream(wanted, have)))
        raise_all(results)

    async def ensure_consumers(self, specs: Sequence[ConsumerSpec]) -> None:
        """Create, compare or check durables; one that exists keeps its position.

        Raises:
            TopologyError: One is missing, differs, or is somebody else's; it names them all.
            ValueError: A spec's ``start`` is no place to start.
        """
        if self._permit.mode == "off":
            for spec in specs:
                _refuse_unmade(spec)
            return
        for spec in specs:
            durables.starting(spec.start)
        # First those that take events from others: theirs must be kept before those leave them.
        for beside in (True, False):
            round_ = [one for one in specs if bool(one.beside) is beside]
            raise_all(await all_at_once(self._ensure_consumer, round_))

    async def recreate_consumer(self, spec: ConsumerSpec, after_sequence: int) -> None:
        """Create the durable again after somebody deleted it under a running worker.

        It goes on after ``after_sequence``, the last event that it needn't see again; where the
        stream was made anew meanwhile, from its beginning. One that exists is left as it is.

        Raises:
            TopologyError: The mode or the server doesn't allow it.
        """
        thing = f"durable {spec.durable}"
        if spec.kept is None:
            self._permit.creation(thing)
        info = await self._stream(self._subjects.stream)
        if info is None:
            await self.ensure_streams()
        last = number(table((info or {}).get("state")).get("last_seq"))
        start = after_sequence + 1 if 0 <= after_sequence <= last else "all"
        with translated(thing):
            if await self._create_consumer(spec, durables.starting(start)):
                self._permit.changed(spec.durable, f"created again, it goes on from {start}")

    def is_narrowed(self, spec: ConsumerSpec, info: Table) -> bool:
        """Tell whether a durable lets pass by what its listener declares."""
        declared = durables.declared_durable(spec, self.filters(spec))
        return bool(durables.added_filters(declared, durables.found_durable(info)))

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait for one's turn to look after a durable.

        What many listeners of a process ask for at once would keep the server, and the loop, from
        their events.
        """
        async with self._lookers:
            yield
            await asyncio.sleep(LOOK_PAUSE)

    async def mend_consumer(self, spec: ConsumerSpec, info: Table | None = None) -> None:
        """Undo what somebody did by hand to a durable that is worked.

        One that was narrowed is deleted, for whoever works it to create it again from where it
        was: with its filters alone back, it would go on behind what it has skipped. One that
        another deploy has declared is left as it is, and so is one that is gone. ``info`` is what
        the server has told of it just now; where None, it is asked.

        Raises:
            TopologyError: It was changed in a way that isn't ours to undo.
        """
        info = info or await self._consumer(spec.durable)
        declared = durables.declared_durable(spec, self.filters(spec))
        if info is None or not edited(declared, durables.found_durable(info)):
            return
        thing = f"durable {spec.durable}"
        if not self.is_narrowed(spec, info):
            await self._compare_consumer(thing, spec, info)
            return
        with translated(thing):
            await self._api.call(self._consumers("DELETE", spec.durable))
        self._permit.changed(spec.durable, "deleted, since somebody had taken filters away")

    async def orphans(self, service: str, specs: Sequence[ConsumerSpec]) -> tuple[str, ...]:
        """Return, and notify of, the durables of a service that nothing declares any more.

        Args:
            service: Whose durables.
            specs: All that it declares, also what this process doesn't work.
        """
        if self._permit.mode == "off":
            return ()
        declared = {spec.durable for spec in specs}
        found: list[str] = []
        with translated(f"durables of service {service}"):
            async for info in self._api.items(self._consumers("LIST"), "consumers"):
                name, config = text(info.get("name")), durables.found_durable(info)
                ours = owner_of(config) == service and durables.is_kept(config)
                if ours and name not in declared:
                    found.append(name)
        for name in sorted(found):
            self._permit.changed(
                name,
                "nobody declares it any more; it holds events until it is deleted, or until a "
                "listener takes its name again",
            )
        return tuple(sorted(found))

    def filters(self, spec: ConsumerSpec) -> tuple[str, ...]:
        """Return the subjects a listener's durable takes, without those another one covers."""
        return durables.filters_of(spec, self._subjects)

    async def _stream(self, name: str) -> Table | None:
        return await self._found(f"STREAM.INFO.{name}", f"stream {name}", codes.STREAM_NOT_FOUND)

    async def _ensure_stream(self, declared: Table, info: Table | None) -> None:
        name = text(declared["name"])
        thing = f"stream {name}"
        if info is None:
            self._permit.creation(thing)
            if await self._create_stream(declared):
                self._permit.changed(name, "created")
                return
            info = _still_there(thing, await self._stream(name))
        found = table(info.get("config"))
        _refuse_foreign_stream(thing, found)
        changes = self._permit.changes(thing, declared, found, streams.ADDITIVE)
        if changes:
            with translated(thing):
                await self._api.call(f"STREAM.UPDATE.{name}", merged(declared, found))
            self._permit.changed(name, "; ".join(one.change for one in changes))

    async def _create_stream(self, declared: Table) -> bool:
        """Return False where somebody has created another one of that name by now."""
        name = text(declared["name"])
        with translated(f"stream {name}"):
            try:
                await self._api.call(f"STREAM.CREATE.{name}", declared)
            except ApiError as exc:
                if exc.err_code == codes.STREAM_EXISTS:
                    return False
                if exc.err_code == codes.SUBJECTS_OVERLAP:
                    raise await self._overlap(declared) from exc
                raise
        return True

    async def _overlap(self, declared: Table) -> TopologyError:
        others: dict[str, list[str]] = {}
        for subject in streams.own_subjects(declared):
            answer = await self._api.call("STREAM.NAMES", {"subject": subject})
            names = answer.get("streams")
            for name in names if isinstance(names, list) else []:
                others.setdefault(text(name), []).append(subject)
        overlaps = ", ".join(f"stream {name} on {_listed(on)}" for name, on in others.items())
        return TopologyError(
            thing=f"stream {text(declared['name'])}",
            problem=f"can't be created, it overlaps with {overlaps or 'another stream'}",
            remedy="choose another EVENTBUS_NAMESPACE, or free those subjects",
        )

    async def _consumer(self, durable: str) -> Table | None:
        verb = self._consumers("INFO", durable)
        return await self._found(verb, f"durable {durable}", codes.CONSUMER_NOT_FOUND)

    async def _ensure_consumer(self, spec: ConsumerSpec) -> None:
        thing = f"durable {spec.durable}"
        self._refuse_outside(thing, self.filters(spec))
        info = await self._consumer(spec.durable)
        if info is None:
            if spec.kept is None:
                self._permit.creation(thing)
            start = await self._start(spec)
            with translated(thing):
                created = await self._create_consumer(spec, durables.starting(start))
            if created:
                self._permit.changed(spec.durable, f"created, it starts with {start}")
                return
            info = _still_there(thing, await self._consumer(spec.durable))
        await self._compare_consumer(thing, spec, info)

    async def _start(self, spec: ConsumerSpec) -> Start:
        if not spec.beside:
            return spec.start
        if spec.start != "new" and await self._consumer(spec.beside) is None:
            return spec.start
        info = await self._stream(self._subjects.stream)
        return number(table((info or {}).get("state")).get("last_seq")) + 1

    async def _compare_consumer(self, thing: str, spec: ConsumerSpec, info: Table) -> None:
        declared = durables.declared_durable(spec, self.filters(spec))
        found = durables.found_durable(info)
        _refuse_foreign_durable(thing, spec, found)
        changes = self._permit.changes(thing, declared, found, durables.ADDITIVE)
        if not changes:
            return
        with translated(thing):
            updated = await self._write_consumer(spec.durable, merged(declared, found), "update")
            arrived = number(updated.get("num_pending")) - number(info.get("num_pending"))
            gap = await self._gap(declared, found, arrived)
        self._permit.changed(spec.durable, "; ".join([*(one.change for one in changes), *gap]))

    async def _create_consumer(self, spec: ConsumerSpec, start: Table) -> bool:
        """Return False where a durable of that name, but another one, exists by now."""
        config = {**durables.declared_durable(spec, self.filters(spec)), **start}
        try:
            await self._write_consumer(spec.durable, config, "create")
        except ApiError as exc:
            if exc.err_code in codes.CONSUMER_EXISTS:
                return False
            raise
        return True

    async def _write_consumer(self, durable: str, config: Table, action: str) -> Table:
        body = {"stream_name": self._subjects.stream, "config": config, "action": action}
        return await self._api.call(self._consumers("CREATE", durable), body)

    async def _gap(self, declared: Table, found: Table, arrived: int) -> tuple[str, ...]:
        """Say what new filters skip: a durable goes on from where it has looked already.

        Its info doesn't tell that place (`delivered` is older where nothing matched since), so
        it is told by counting: what is stored, less what arrived with the update.
        """
        added = durables.added_filters(declared, found)
        before = durables.filters_in(found)
        stored: dict[str, int] = {}
        last = 0
        for one in added:
            verb = f"STREAM.INFO.{self._subjects.stream}"
            state = table((await self._api.call(verb, {"subjects_filter": one})).get("state"))
            last = number(state.get("last_seq"))
            stored |= {key: number(count) for key, count in table(state.get("subjects")).items()}
        known = sum(
            count
            for subject, count in stored.items()
            if not any(covers(wide, subject) for wide in before)
        )
        if known <= arrived:
            return ()
        return (
            f"it skips {known - arrived} of {known} stored on {_listed(added)} up to sequence "
            f"{last}, replay them if the listener needs them",
        )

    def _refuse_outside(self, thing: str, filters: tuple[str, ...]) -> None:
        declared = streams.declared_streams(self._settings, self._level or 0)
        stream = next(one for one in declared if one["name"] == self._subjects.stream)
        never = streams.outside(filters, stream)
        if never:
            raise TopologyError(
                thing=thing,
                problem=f"filters {_listed(never)}, which stream {self._subjects.stream} never "
                "holds, so that it would wait for ever",
                remedy="subscribe to events by their name or a pattern of names",
            )

    async def _found(self, verb: str, thing: str, absent: int) -> Table | None:
        with translated(thing):
            try:
                return await self._api.call(verb)
            except ApiError as exc:
                if exc.err_code == absent:
                    return None
                raise

    def _consumers(self, verb: str, *durable: str) -> str:
        return ".".join(["CONSUMER", verb, self._subjects.stream, *durable])


def _refuse_unmade(spec: ConsumerSpec) -> None:
    if spec.kept is not None:
        raise TopologyError(
            thing=f"durable {spec.durable}",
            problem="is this process's own, and EVENTBUS_PROVISION=off creates nothing",
            remedy="set EVENTBUS_PROVISION=check or auto for listeners of mode fanout or ephemeral",
        )


def _refuse_foreign_stream(thing: str, found: Table) -> None:
    if owner_of(found) != streams.OWNED_BY:
        raise TopologyError(
            thing=thing,
            problem=f"belongs to somebody else: it holds {_listed(streams.takes(found))}, and its "
            f"metadata doesn't say {OWNER}={streams.OWNED_BY}",
            remedy="choose another EVENTBUS_NAMESPACE, or rename that stream",
        )


def _refuse_foreign_durable(thing: str, spec: ConsumerSpec, found: Table) -> None:
    owner, listener = durables.listener_of(found)
    if (owner, listener) != (spec.service, spec.listener):
        whose = f"listener {listener} of service {owner}" if owner else "somebody else"
        raise TopologyError(
            thing=thing,
            problem=f"belongs to {whose}, by its metadata",
            remedy="give the listener another name= in subscribe(), or delete that durable",
        )


def _still_there(thing: str, info: Table | None) -> Table:
    if info is None:
        raise DriverError(f"{thing} was created and deleted while we looked; try again")
    return info


def _hosts(settings: Settings) -> str:
    """Return the servers' hosts; a URL may hold a password."""
    urls = (urlsplit(url if "//" in url else f"//{url}") for url in settings.servers)
    return ", ".join(url.netloc.rpartition("@")[2] for url in urls)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
