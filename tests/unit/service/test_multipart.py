from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import MalformedUpload, MissingFile, UploadTooLarge
from service.items import Item
from service.multipart import OVERHEAD_BYTES, FilePart, FileParts

BOUNDARY = b"frontier"


def part(name: str, content: bytes) -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"; filename="a.png"\r\nContent-Type: image/png'
    return b"--" + BOUNDARY + b"\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"


END = b"--" + BOUNDARY + b"--\r\n"
# Contents that resemble a boundary are where a streaming parser goes wrong.
contents = st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--frontier", b"\r\n--front", b"x", b"\0"])).map(b"".join)


@settings(deadline=None)  # a busy machine is not a defect
@given(contents, contents, st.lists(st.integers(0, 1000), max_size=10))
def test_however_it_is_cut_up(before: bytes, picture: bytes, cuts: list[int]) -> None:
    if b"\r\n--" + BOUNDARY in b"\r\n" + before + b"\r\n" + picture:
        return  # not a valid form
    body = part("note", before) + part("file", picture) + END
    edges = [0, *sorted(cut % len(body) for cut in cuts), len(body)]
    parser = FilePart(BOUNDARY, limit=10_000)
    for start, stop in pairwise(edges):
        parser.write(body[start:stop])
    assert parser.finish() == picture


def test_the_limit_is_the_pictures() -> None:
    for size, refused in ((1000, False), (1001, True)):
        parser = FilePart(BOUNDARY, limit=1000)
        body = part("note", bytes(5000)) + part("file", bytes(size)) + END
        if refused:
            with pytest.raises(UploadTooLarge):
                parser.write(body)
        else:
            parser.write(body)
            assert parser.finish() == bytes(size)


def test_other_parts_are_bounded_too() -> None:
    parser = FilePart(BOUNDARY, limit=1000)
    with pytest.raises(UploadTooLarge):
        parser.write(part("note", bytes(OVERHEAD_BYTES + 1000)))


def test_an_empty_form_names_what_it_found() -> None:
    parser = FilePart(BOUNDARY, limit=1000)
    parser.write(part("picture", b"abc") + END)
    with pytest.raises(MissingFile, match="'picture'"):
        parser.finish()


@settings(deadline=None)
@given(st.lists(contents, min_size=1, max_size=5), st.lists(st.integers(0, 2000), max_size=10))
def test_many_parts_however_they_are_cut_up(pictures: list[bytes], cuts: list[int]) -> None:
    if any(b"\r\n--" + BOUNDARY in b"\r\n" + picture for picture in pictures):
        return  # not a valid form
    body = part("note", b"ignored") + b"".join(part("file", picture) for picture in pictures) + END
    edges = [0, *sorted(cut % len(body) for cut in cuts), len(body)]
    parser = FileParts(BOUNDARY, limit=10_000)
    items: list[Item] = []
    for start, stop in pairwise(edges):
        items += parser.write(body[start:stop])
    items += parser.finish()
    assert [item.read() for item in items] == pictures
    assert {item.name for item in items} == {"a.png"}


def test_of_many_parts_the_large_one_is_refused_alone() -> None:
    parser = FileParts(BOUNDARY, limit=1000)
    body = part("file", bytes(1000)) + part("file", bytes(5000)) + part("file", b"last") + END
    first, large, last = [*parser.write(body), *parser.finish()]
    assert (first.read(), last.read()) == (bytes(1000), b"last")
    with pytest.raises(UploadTooLarge) as refusal:
        large.read()
    assert refusal.value.actual == 5000


def test_of_many_parts_the_others_are_bounded() -> None:
    parser = FileParts(BOUNDARY, limit=1000)
    with pytest.raises(UploadTooLarge):
        list(parser.write(part("note", bytes(OVERHEAD_BYTES + 1))))


def test_many_parts_of_which_none_is_a_picture() -> None:
    parser = FileParts(BOUNDARY, limit=1000)
    list(parser.write(part("picture", b"abc") + END))
    with pytest.raises(MissingFile, match="'picture'"):
        parser.finish()
    cut_off = FileParts(BOUNDARY, limit=1000)
    list(cut_off.write(part("file", b"abc")))
    with pytest.raises(MalformedUpload):
        cut_off.finish()
