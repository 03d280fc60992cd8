from dataclasses import replace

import pytest

from clicv2.contract import Manifest
from service.cache.results import CacheUse
from service.routes.conditional import cache_status, cache_use, etag, has_it, not_modified, validators
from service.schemas import ComplexityQuery

CONTENT = "ab" * 32
QUERY = ComplexityQuery.model_validate({})


def query(**options: object) -> ComplexityQuery:
    return ComplexityQuery.model_validate(options)


def test_a_tag_names_all_that_an_answer_depends_on(manifest: Manifest) -> None:
    tags = [
        etag(CONTENT, manifest, "json", QUERY),
        etag("cd" * 32, manifest, "json", QUERY),
        etag(CONTENT, replace(manifest, version=2), "json", QUERY),
        etag(CONTENT, replace(manifest, name="other"), "json", QUERY),
        etag(CONTENT, replace(manifest, sha256="0" * 64), "json", QUERY),
        etag(CONTENT, replace(manifest, fingerprint="0" * 16), "json", QUERY),
        etag(CONTENT, manifest, "png", QUERY),
        etag(CONTENT, manifest, "json", query(heatmap="grid")),
        etag(CONTENT, manifest, "json", query(heatmap="png")),
        etag(CONTENT, manifest, "json", query(heatmap="png", colormap="magma")),
        etag(CONTENT, manifest, "json", query(heatmap="png", heatmap_size=100)),
        etag(CONTENT, manifest, "json", query(heatmap="overlay", opacity=0.1)),
    ]
    assert len(set(tags)) == len(tags)
    assert etag(CONTENT, manifest, "json", QUERY) == tags[0]


def test_a_tag_is_one(manifest: Manifest) -> None:
    tag = etag(CONTENT, manifest, "json", QUERY)
    assert tag.startswith('W/"')
    assert has_it([tag], tag)


@pytest.mark.parametrize(
    ("lines", "known"),
    [
        ([], False),
        ([""], False),
        (['W/"tag"'], True),
        (['"tag"'], True),  # the weak comparison: RFC 9110, section 8.8.3.2
        (['"other"'], False),
        (['"other", W/"tag"'], True),
        (['"other",W/"tag","third"'], True),
        (['"other"', '"tag"'], True),
        ([', ,"tag",'], True),  # empty elements are to be ignored: section 5.6.1.2
        (['"a,tag,b"'], False),
        (['"a, "tag'], False),
        (["tag"], False),
        (['"tag'], False),
        (['"TAG"'], False),
        (['"tag "'], False),
        (["*"], False),
        (['"*"'], False),
    ],
)
def test_if_none_match(lines: list[str], known: bool) -> None:
    assert has_it(lines, 'W/"tag"') is known
    assert has_it(lines, '"tag"') is known


def test_a_304_has_the_headers_of_the_200_and_nothing_else() -> None:
    answer = not_modified('W/"tag"')
    assert answer.status_code == 304
    assert answer.body == b""
    assert {name.lower(): value for name, value in validators('W/"tag"').items()} == dict(answer.headers)
    assert dict(answer.headers) == {"etag": 'W/"tag"', "cache-control": "private, no-cache", "vary": "Accept"}


@pytest.mark.parametrize(
    ("lines", "use"),
    [
        ([], CacheUse(find=True, keep=True)),
        ([""], CacheUse(find=True, keep=True)),
        (["no-cache"], CacheUse(find=False, keep=True)),
        (["No-Cache"], CacheUse(find=False, keep=True)),
        (["no-store"], CacheUse(find=False, keep=False)),
        (["max-age=60, no-store"], CacheUse(find=False, keep=False)),
        (["max-age=60", "no-cache=x"], CacheUse(find=False, keep=True)),
        (["max-age=0"], CacheUse(find=False, keep=True)),
        (["max-age=60"], CacheUse(find=True, keep=True)),
        (["no-transform, no-caches"], CacheUse(find=True, keep=True)),
    ],
)
def test_cache_control_of_a_request(lines: list[str], use: CacheUse) -> None:
    assert cache_use(lines) == use


def test_cache_status() -> None:
    assert cache_status("hit") == {"Cache-Status": "clicv2;hit"}
    assert cache_status("shared") == {"Cache-Status": "clicv2;fwd=miss;collapsed"}
    assert cache_status("miss") == {"Cache-Status": "clicv2;fwd=miss"}
    assert cache_status(None) == {}
