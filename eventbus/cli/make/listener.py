"""``eventbus make listener``: a listener's class, its binding in the map, and its test."""

import re
from pathlib import Path
from typing import Annotated

import typer

__all__ = ("listener",)

_MAP = '''\
"""What listens to what; services take it where EVENTBUS_LISTENERS is ``{package}:event_map``."""

from eventbus import EventMap

__all__ = ("event_map",)

event_map = EventMap()
'''
_CLASS = '''\
class {name}(Listener[{event}]):
    """Handles ``{event_name}``."""
{options}
    async def handle(self, event: {event}) -> None:
        """Handle an event; what this raises is tried again."""
        _log.info("%s handles %s", type(self).__name__, event)
'''
_QUEUED = """
    options: ClassVar = {"connection": "queue"}
"""
_TEST = """\
def test_{plain}_listens_to_{event_plain}() -> None:
    events = EventService("tests")
    events.include(event_map)

    with events.fake() as fake:
        fake.assert_listening({event}, {name})
"""


def listener(
    *,
    name: Annotated[str, typer.Argument(help="Like SendConfirmation.", show_default=False)],
    event: Annotated[str, typer.Option(help="The name of the event that it handles.")],
    queued: Annotated[
        bool, typer.Option("--queued", help="Handle it from the queue, whatever its driver is.")
    ] = False,
    package: Annotated[str, typer.Option(help="Where listeners and their map are.")] = "listeners",
) -> None:
    """Write a listener's class, bind it in the map of the package, and write a test of that.

    Nothing is overwritten. EVENTBUS_LISTENERS=listeners:event_map makes services take the map.
    """
    from eventbus.cli.make.writing import Change, write
    from eventbus.errors import ConfigurationError
    from eventbus.loading import search_working_directory
    from eventbus.service import EventService

    if re.fullmatch(r"[A-Z][A-Za-z0-9]*", name) is None:
        raise ConfigurationError(f"{name!r} isn't the name of a class; write SendConfirmation")
    search_working_directory()
    handled = EventService("make").discover().resolve(event)
    plain = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    folder = Path(*package.split("."))
    values = {
        "name": name,
        "event": handled.__name__,
        "event_name": event,
        "plain": plain,
        "event_plain": event.replace(".", "_"),
        "package": package,
    }
    of_event = {handled.__module__: [handled.__name__]}
    written = write(
        Change(
            folder / f"{plain}.py",
            new=f'"""`{name}`: what is done about ``{event}``."""\n',
            definition=f'__all__ = ("{name}",)\n\n_log = logging.getLogger(__name__)\n\n\n'
            + _CLASS.format(**values, options=_QUEUED if queued else ""),
            imports={
                "logging": [],
                "eventbus": ["Listener"],
                **of_event,
                **({"typing": ["ClassVar"]} if queued else {}),
            },
        ),
        Change(
            folder / "__init__.py",
            new=_MAP.format(**values),
            name=name,
            definition=f"event_map.bind({handled.__name__}, {name})",
            imports={f"{package}.{plain}": [name], **of_event},
        ),
        Change(
            Path("tests", package.rpartition(".")[2], f"test_{plain}.py"),
            new=f'"""`{name}` is bound to its event."""\n',
            definition="\n" + _TEST.format(**values),
            imports={"eventbus": ["EventService"], package: ["event_map", name], **of_event},
        ),
        packages={},
    )
    for path in written:
        print(path)
