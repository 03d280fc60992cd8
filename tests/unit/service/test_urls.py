import re
from ipaddress import ip_address

import not_public
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidUrl
from service.urls import MAX_LENGTH, Target, parse


@pytest.mark.parametrize(
    ("text", "target", "authority"),
    [
        ("http://public.example", Target("http", "public.example", 80, "/"), "public.example"),
        ("HTTPS://Public.Example./A", Target("https", "public.example", 443, "/A"), "public.example"),
        ("http://public.example:443/", Target("http", "public.example", 443, "/"), "public.example:443"),
        ("https://public.example:443/", Target("https", "public.example", 443, "/"), "public.example"),
        ("http://public.example?a=b#c", Target("http", "public.example", 80, "/?a=b"), "public.example"),
        ("http://public.example/?#", Target("http", "public.example", 80, "/?"), "public.example"),
        ("http://a_b.example/é|%20?ä#ö", Target("http", "a_b.example", 80, "/%C3%A9%7C%20?%C3%A4"), "a_b.example"),
        ("http://bücher.example/", Target("http", "xn--bcher-kva.example", 80, "/"), "xn--bcher-kva.example"),
        ("http://日本。例え/", Target("http", "xn--wgv71a.xn--r8jz45g", 80, "/"), "xn--wgv71a.xn--r8jz45g"),
        ("http://faß.example/", Target("http", "xn--fa-hia.example", 80, "/"), "xn--fa-hia.example"),
        ("http://93.184.215.14/", Target("http", "93.184.215.14", 80, "/"), "93.184.215.14"),
        ("http://93.184.215.14./", Target("http", "93.184.215.14", 80, "/"), "93.184.215.14"),
        ("http://[2606:4700:0::1111]/", Target("http", "2606:4700::1111", 80, "/"), "[2606:4700::1111]"),
        ("http://[2606:4700::1]:443/", Target("http", "2606:4700::1", 443, "/"), "[2606:4700::1]:443"),
        ("http://public.example/@x:y", Target("http", "public.example", 80, "/@x:y"), "public.example"),
    ],
)
def test_what_is_read(text: str, target: Target, authority: str) -> None:
    assert parse(text) == target
    assert target.authority == authority
    assert parse(str(target)) == target


def test_hosts_that_are_addresses() -> None:
    assert parse("http://127.0.0.1/").address == ip_address("127.0.0.1")
    assert parse("http://[::ffff:7f00:1]/").address == ip_address("::ffff:127.0.0.1")
    assert parse("http://１２７.０.０.１/").address == ip_address("127.0.0.1")
    assert parse("http://127.0.0.1.example/").address is None
    assert parse("http://1a.2b/").address is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "must begin with"),
        ("file:///etc/passwd", "must begin with"),
        ("httpſ://public.example/", "must begin with"),
        ("http://user@public.example/", "user name or a password"),
        ("http://:secret@public.example/", "user name or a password"),
        ("http://public.example/a b", "space"),
        ("http://public.example/\r\nX: y", "unprintable"),
        ("http://public.example\\@other.example/", "backslash"),
        ("http://public.example/\ud800", "unprintable"),
        ("http://public.example/" + "a" * MAX_LENGTH, "longer than"),
        ("http://public.example:0/", "port"),
        ("http://public.example:65536/", "port"),
        ("http://public.example:/", "cannot be parsed"),
        ("http://public.example:８０/", "cannot be parsed"),
        ("http:///path", "cannot be parsed"),
        ("http://a%62c.example/", "cannot be parsed"),
        ("http://[fe80::1%25eth0]/", "cannot be parsed"),
        ("http://127.1/", "usual spelling"),
        ("http://0x7f000001/", "usual spelling"),
        ("http://a..example/", "valid name"),
        ("http://-a.example/", "valid name"),
        ("http://" + "a" * 64 + ".example/", "valid name"),
        ("http://" + "a." * 130 + "example/", "valid name"),
        ("http://☃\u0301\u0301.example..", "valid name"),
    ],
)
def test_what_is_not(text: str, why: str) -> None:
    with pytest.raises(InvalidUrl, match=why) as caught:
        parse(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("/b?c#d", "http://public.example/b?c"),
        ("b", "http://public.example/x/b"),
        ("../b", "http://public.example/b"),
        ("?b", "http://public.example/x/y?b"),
        ("//other.example/b", "http://other.example/b"),
        ("https://other.example", "https://other.example/"),
    ],
)
def test_where_redirects_lead(reference: str, target: str) -> None:
    assert str(parse("http://public.example/x/y").join(reference)) == target


@pytest.mark.parametrize("reference", ["file:///etc/passwd", "//a@b/", "//[", "\t//127.0.0.1", "javascript:x"])
def test_where_they_cannot(reference: str) -> None:
    with pytest.raises(InvalidUrl):
        parse("http://public.example/x/y").join(reference)


PIECES = ["http", "https", *r":/@?#[]\%.。é１", "//", "://", "%25", "127.0.0.1", "::1", "a.example", "0x7f"]


@given(st.lists(st.one_of(st.sampled_from([*PIECES, *not_public.SPELLINGS]), st.text(max_size=3)), max_size=12))
def test_whatever_is_read_is_plain_and_is_read_as_the_same_again(pieces: list[str]) -> None:
    try:
        target = parse("".join(pieces))
    except InvalidUrl:
        return
    assert re.fullmatch(r"[a-z0-9_.:-]+", target.host)
    assert re.fullmatch(r"/[!-~]*", target.path)
    assert parse(str(target)) == target
