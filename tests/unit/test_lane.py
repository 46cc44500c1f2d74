"""The lane takes its own messages out of what the server sends, and passes the rest on."""

import asyncio

import pytest

from eventbus.drivers.jetstream.frame import Frame, Stored, publish_command, read_head
from eventbus.drivers.jetstream.lane import Lane
from eventbus.headers import Headers, Shared

HEAD = b"NATS/1.0\r\nce-id: 7\r\n\r\n"


class Socket(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.protocol: asyncio.BaseProtocol | None = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: object) -> None:
        assert isinstance(data, bytes)
        self.written.append(data)


class Below(asyncio.Protocol):
    """Keeps what is passed on."""

    def __init__(self) -> None:
        self.passed = b""

    def data_received(self, data: bytes) -> None:
        self.passed += data


class Ground:
    """A lane between the two, with one subscription and an inbox for answers."""

    def __init__(self) -> None:
        self.socket = Socket()
        self.below = Below()
        self.frames: list[Frame] = []
        self.answers: list[tuple[bytes, Frame]] = []
        self.lane = Lane(self.socket, self.below, 1000)
        self.sid = self.lane.subscribe("orders.>", self.frames.append)
        self.inbox = self.lane.subscribe("_INBOX.x.*", self.frames.append)
        self.lane.expect("_INBOX.x.", self.inbox, lambda *one: self.answers.append(one))

    def hears(self, data: bytes, size: int) -> None:
        for place in range(0, len(data), size):
            self.lane.data_received(data[place : place + size])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
async def test_every_frame_is_found_however_the_bytes_arrive(size: int) -> None:
    ground = Ground()
    sent = b"".join(
        (
            b"PING\r\n",
            b"MSG orders.new %b 5\r\na\r\nbc\r\n" % ground.sid,
            b"MSG _INBOX.x.12 %b 9\r\n{\r\nMSG }}\r\n" % ground.inbox,
            b"MSG other.thing 3 back 2\r\nhi\r\n",
            b"HMSG orders.new %b $JS.ACK.1 %d %d\r\n%bbody\r\n"
            % (ground.sid, len(HEAD), len(HEAD) + 4, HEAD),
            b"-ERR 'Permissions Violation'\r\n",
            b"MSG _INBOX.x.13 %b 0\r\n\r\n" % ground.inbox,
        )
    )

    ground.hears(sent, size)

    assert [(one.subject, one.reply, one.data, one.headers) for one in ground.frames] == [
        ("orders.new", "", b"a\r\nbc", None),
        ("orders.new", "$JS.ACK.1", b"body", {"ce-id": "7"}),
    ]
    assert [(token, one.data) for token, one in ground.answers] == [
        (b"12", b"{\r\nMSG }}"),
        (b"13", b""),
    ]
    assert ground.below.passed == (
        b"PING\r\nMSG other.thing 3 back 2\r\nhi\r\n-ERR 'Permissions Violation'\r\n"
    )


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_the_usual_answer_is_read_where_it_is_found(size: int) -> None:
    ground = Ground()
    bodies = [b'{"stream":"EVENTS", "seq":7}', b'{"stream":"E","seq":80}']
    sent = b"".join(
        b"MSG _INBOX.x.%d %b %d\r\n%b\r\n" % (token, ground.inbox, len(body), body)
        for token, body in enumerate(bodies)
    )

    ground.hears(sent, size)

    found = [one for _, one in ground.answers if isinstance(one, Stored)]
    assert [token for token, _ in ground.answers] == [b"0", b"1"]
    assert [(one.stream, one.sequence, one.data) for one in found] == [
        (b"EVENTS", b"7", bodies[0]),
        (b"E", b"80", bodies[1]),
    ]


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    "body",
    [
        b'{"stream":"E","seq":7}\r\nMSG ',  # it goes on
        b'{"stream":"E","seq":7,"duplicate":true}',
        b'{"error":{"code":503},"stream":"E","seq":0}',
        b'{"stream":"E","seq":-7}',
        b'{"stream":"E\xff","seq":7}',
        b'{"stream":"E","seq":%d}' % 10**30,
        b"",
    ],
)
async def test_an_answer_that_says_more_is_left_as_it_is(body: bytes, size: int) -> None:
    ground = Ground()

    ground.hears(b"MSG _INBOX.x.1 %b %d\r\n%b\r\n" % (ground.inbox, len(body), body), size)

    ((_, one),) = ground.answers
    assert (one.data, isinstance(one, Stored)) == (body, False)


async def test_an_answer_with_a_status_goes_to_the_subscription() -> None:
    ground = Ground()
    head = b"NATS/1.0 503\r\n\r\n"

    ground.hears(b"HMSG _INBOX.x.4 %b %d %d\r\n%b\r\n" % (ground.inbox, 16, 16, head), 9)

    assert [(one.subject, one.headers) for one in ground.frames] == [
        ("_INBOX.x.4", {"Status": "503"})
    ]
    assert ground.answers == []


async def test_a_subscription_that_has_ended_gets_nothing_and_nats_py_neither() -> None:
    ground = Ground()
    ground.lane.unsubscribe(ground.sid)
    ground.lane.forget(ground.sid)

    ground.hears(b"MSG orders.new %b 1\r\na\r\n" % ground.sid, 5)

    assert (ground.frames, ground.below.passed) == ([], b"")


async def test_what_is_written_in_one_turn_leaves_at_once_and_in_order() -> None:
    ground = Ground()
    ground.lane.flush()
    ground.socket.written.clear()

    ground.lane.write(b"PUB a  0\r\n\r\n")
    ground.lane.write(b"PUB b  0\r\n\r\n")
    await asyncio.sleep(0)

    assert ground.socket.written == [b"PUB a  0\r\n\r\nPUB b  0\r\n\r\n"]


async def test_a_lot_is_written_before_the_turn_ends() -> None:
    ground = Ground()
    ground.lane.flush()
    ground.socket.written.clear()

    ground.lane.write(b"x" * 1001)

    assert ground.socket.written == [b"x" * 1001]


def test_the_headers_of_an_event_are_read_as_they_were_written() -> None:
    shared = Shared({"ce-source": "bench", "ce-type": "order.placed"})
    headers = Headers(shared, "1", "ce-id: 1\r\nce-time: now\r\nX-Mine: a: b\r\n")

    command = publish_command("events.a", "reply", b"{}", headers, "1")
    first, _, rest = command.partition(b"\r\n")
    size = int(first.split()[3])

    assert first.split()[:3] == [b"HPUB", b"events.a", b"reply"]
    assert rest[size:] == b"{}\r\n"
    for _ in range(2):  # the second time, what is shared is known
        assert read_head(rest[:size]) == {
            "ce-source": "bench",
            "ce-type": "order.placed",
            "ce-id": "1",
            "ce-time": "now",
            "x-mine": "a: b",
            "nats-msg-id": "1",
        }


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (
            b"NATS/1.0\r\nA:b\r\n  C : d \r\nno colon\r\nwith space: x\r\n\r\n",
            {"A": "b", "C": "d"},
        ),
        (b"NATS/1.0 404 No Messages\r\n\r\n", {"Status": "404", "Description": "No Messages"}),
        (b"NATS/1.0 503\r\n\r\n", {"Status": "503"}),
        (
            b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Stream: 9\r\n\r\n",
            {"Status": "100", "Description": "Idle Heartbeat", "Nats-Last-Stream": "9"},
        ),
        (b"NATS/1.0\r\n\xff: a\r\nb: \xff\r\n\r\n", {"b": "\ufffd"}),
        (b"NATS/1.0 \xff\r\n", None),
        (b"", None),
    ],
)
def test_a_block_of_headers_is_read_whatever_is_in_it(
    head: bytes, expected: dict[str, str] | None
) -> None:
    assert Frame(b"", b"", head, b"").headers == expected


def test_the_shared_part_that_is_remembered_is_bounded() -> None:
    from eventbus.drivers.jetstream import frame

    for number in range(3 * frame._CONSTANTS_KEPT):
        read_head(b"NATS/1.0\r\nx: %d\r\nce-id: 1\r\n\r\n" % number)

    assert len(frame._constants) <= frame._CONSTANTS_KEPT
