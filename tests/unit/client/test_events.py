from itertools import pairwise

import pytest
from clicv2_client.errors import ConnectionFailed, InvalidAnswer, TimedOut, UnknownJob
from clicv2_client.errors import ProblemDocument as Document
from clicv2_client.events import Listening, Parser, ServerSent
from clicv2_client.results import JobEvent
from clicv2_client.retry import Retry
from fastapi.sse import format_sse_event
from hypothesis import given
from hypothesis import strategies as st

from service.routes import job_examples
from service.schemas import JobEvent as Served

SENT = job_examples.EVENTS.encode()
LINE = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=("Cs",)), max_size=20)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


@given(
    told=st.lists(
        st.tuples(
            LINE.filter(lambda kind: kind.strip() == kind != ""),
            st.lists(LINE, min_size=1, max_size=3),
            st.none() | st.integers(0, 10**6),
        ),
        max_size=5,
    ),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
    cuts=st.lists(st.integers(0, 10**4), max_size=20),
)
def test_what_the_service_writes_is_read_however_it_is_cut(
    told: list[tuple[str, list[str], int | None]], ending: str, cuts: list[int]
) -> None:
    written = b"".join(
        format_sse_event(event=kind, data_str="\n".join(data), id=None if number is None else str(number))
        + format_sse_event(comment="still here")
        for kind, data, number in told
    )
    stream = written.replace(b"\n", ending.encode()) + b"\n"  # of a "\r" at the end nobody knows what follows
    expected = [
        ServerSent(kind, "\n".join(data), None if number is None else str(number)) for kind, data, number in told
    ]
    for cut in (pieces(stream, cuts), pieces(stream, [*range(len(stream))])):
        parser = Parser()
        assert [event for piece in cut for event in parser.feed(piece)] == expected


@given(st.lists(st.binary(max_size=30), max_size=10))
def test_no_stream_breaks_it(stream: list[bytes]) -> None:
    parser = Parser()
    for piece in stream:
        list(parser.feed(piece))


def listening(after: int = 0, retry: Retry = Retry()) -> Listening:  # noqa: B008  # frozen
    return Listening(after, retry, lambda: 0.5, lambda: 0.0, 60)


def test_the_events_of_a_job() -> None:
    listener = listening()
    assert listener.headers() == {}
    events = list(listener.feed(SENT))
    assert [event.kind for event in events] == ["job", "item", "item", "end"]
    assert [event.id for event in events] == [None, 1, 2, 3]
    assert events[1].score == 0.412345
    assert events[2].problem == "urn:clicv2:problem:corrupt-image"
    assert listener.ended
    assert set(Served.model_fields) | {"kind", "id"} == set(JobEvent.model_fields)


def test_a_stream_that_ends_too_soon_is_taken_up_where_it_was() -> None:
    listener = listening()
    before = SENT[: SENT.index(b"event: end")]
    assert len(list(listener.feed(before))) == 3
    assert not listener.ended
    assert listener.pause_s(None) == pytest.approx(1 + 0.05), "as the stream has said"
    assert listener.headers() == {"Last-Event-ID": "2"}
    assert [event.kind for event in listener.feed(SENT[len(before) :])] == ["end"]
    assert listener.ended


def test_half_an_event_is_forgotten_with_its_stream() -> None:
    listener = listening(after=7)
    assert list(listener.feed(b'event: item\ndata: {"index"')) == []
    listener.pause_s(ConnectionFailed("cut"))
    assert listener.headers() == {"Last-Event-ID": "7"}
    assert len(list(listener.feed(SENT))) == 4


def test_who_is_refused_is_not_asked_again() -> None:
    gone = UnknownJob(Document(status=404))
    with pytest.raises(UnknownJob):
        listening().pause_s(gone)
    with pytest.raises(ConnectionFailed):
        listening(retry=Retry(attempts=1)).pause_s(ConnectionFailed("cut"))


@pytest.mark.parametrize("error", [ConnectionFailed("refused"), None])
def test_a_service_that_is_gone_for_good_is_told_of(error: ConnectionFailed | None) -> None:
    """A minute of silence in all, however often it has been away before."""
    now = 0.0
    listener = Listening(0, Retry(), lambda: 0.5, lambda: now, 60)
    for _ in range(3):
        listener.pause_s(error)
        now += 59
        listener.pause_s(error)
        list(listener.feed(b": still here\n\n"))
    listener.pause_s(error)
    now += 61
    with pytest.raises(TimedOut if error is None else ConnectionFailed):
        listener.pause_s(error)


@pytest.mark.parametrize("data", ["nonsense", "[]", "3", '{"counts": 3}', "{}"])
def test_what_is_no_event_of_a_job_is_said(data: str) -> None:
    with pytest.raises(InvalidAnswer, match="no event"):
        list(listening().feed(f"event: item\ndata: {data}\n\n".encode()))
