"""``eventbus make event``: an event's class in the schemas, and its test."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventbus.cli.make.kinds import FieldKind

__all__ = ("event",)


def event(
    *,
    name: Annotated[
        str, typer.Argument(help="Like user.registered or UserRegistered.", show_default=False)
    ],
    field: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME:TYPE; TYPE[] for many, TYPE? for one that may be missing. "
            "Repeatable; <resource>_id:str if not given."
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            help="The field that orders it; the first one that ends in _id if not given."
        ),
    ] = None,
) -> None:
    """Write an event's class into schemas/<resource>.py, and a test of it.

    Nothing is overwritten. The event is known by its name at once: schemas/ is searched.
    """
    from eventbus.cli.make.kinds import field_of
    from eventbus.cli.make.writing import Change, schemas_package, write

    event_name = _dotted(name)
    resource = event_name.partition(".")[0]
    fields = tuple(field_of(one) for one in field or [f"{resource}_id:str"])
    package = schemas_package()
    made = _Source(event_name, fields, _key(key, fields), f"{package}.{resource}")
    folder, tests = Path(*package.split(".")), Path("tests", package.rpartition(".")[2])
    written = write(
        Change(
            folder / f"{resource}.py",
            new=f'"""What happens to {_article(resource)}."""\n\n__all__ = ()\n',
            name=made.class_name,
            definition=made.definition(),
            imports=made.imports(),
        ),
        Change(
            tests / f"test_{event_name.replace('.', '_')}.py",
            new=f'"""`{made.class_name}`: what it carries, and what it refuses."""\n',
            definition=made.test(),
            imports={
                "pytest": [],
                "eventbus": ["EventService"],
                "eventbus.errors": ["InvalidEventError"],
                made.module: [made.class_name],
            },
        ),
        packages={folder: "The events, a module for each resource."},
    )
    for path in written:
        print(path)


@dataclass(frozen=True, slots=True)
class _Source:
    """The source of an event and its test."""

    name: str
    fields: "Sequence[FieldKind]"
    key: str | None
    module: str

    @property
    def class_name(self) -> str:
        return "".join(part.capitalize() for part in re.split(r"[._]", self.name))

    def imports(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {"eventbus.event": ["Event"]}
        for module, name in (pair for one in self.fields for pair in one.imports):
            found.setdefault(module, []).append(name)
        return found

    def definition(self) -> str:
        key = f', key="{self.key}"' if self.key else ""
        *resource, verb = self.name.split(".")
        said = f"{_article(' '.join(resource))} was {verb}".replace("_", " ")
        lines = "\n".join(f"    {one.line}" for one in self.fields)
        return (
            f'class {self.class_name}(Event, name="{self.name}"{key}):\n'
            f'    """{said[:1].upper()}{said[1:]}."""\n\n{lines}\n'
        )

    def test(self) -> str:
        plain = self.name.replace(".", "_")
        pairs = "".join(f'    "{one.name}": {one.sample},\n' for one in self.fields)
        return f'''\
DATA: dict[str, object] = {{
{pairs}}}


async def test_{plain}_is_emitted_by_its_name() -> None:
    events = EventService("tests")
    events.registry.register({self.class_name})

    with events.fake() as fake:
        await events.emit("{self.name}", DATA)

    fake.assert_emitted({self.class_name}, times=1)


async def test_{plain}_refuses_a_field_that_it_doesnt_have() -> None:
    events = EventService("tests")
    events.registry.register({self.class_name})

    with events.fake() as fake, pytest.raises(InvalidEventError):
        await events.emit("{self.name}", {{**DATA, "nobody_knows_this": 1}})

    fake.assert_nothing_emitted()
'''


def _dotted(name: str) -> str:
    """Return the event's name for a class's, ``UserRegistered`` or ``user.registered``."""
    from eventbus.subject import check_event_name

    if "." not in name and name[:1].isupper():
        name = ".".join(part.lower() for part in re.findall(r"[A-Z][a-z0-9]*", name))
    return check_event_name(name)


def _key(wanted: str | None, fields: "Sequence[FieldKind]") -> str | None:
    """Return the ordering key's field.

    Raises:
        ConfigurationError: It isn't one of the fields.
    """
    from eventbus.errors import ConfigurationError, did_you_mean

    names = [one.name for one in fields]
    if wanted is None:
        return next((one for one in names if one.endswith("_id")), None)
    if wanted not in names:
        hint = did_you_mean(wanted, names)
        raise ConfigurationError(f"--key {wanted!r} isn't one of its fields{hint}")
    return wanted


def _article(resource: str) -> str:
    words = resource.replace("_", " ")
    return f"{'an' if words[0] in 'aeio' else 'a'} {words}"
