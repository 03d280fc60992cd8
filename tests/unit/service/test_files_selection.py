"""Choices by complexity: what each strategy means, against plain ones made of lists."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.files.rows import Row
from service.files.selection import Pool, Strategy, quotas

RANDOM = random.Random(0)
# Few are simple or complex, as in life; some scores are equal.
SCORES = {f"p/{n}.jpg": round(min(max(RANDOM.gauss(0.5, 0.12), 0), 1), 3) for n in range(2000)}


def choose(number: int, strategy: Strategy, scores: dict[str, float] = SCORES, seed: int = 0) -> list[str]:
    with Pool(seed) as pool:
        pool.take(Row(path=path, score=score) for path, score in scores.items())
        assert pool.choose(number, strategy) == min(number, len(scores))
        return list(pool.chosen(most_complex_first=strategy is Strategy.HIGH))


@pytest.mark.parametrize("number", [1, 7, 500, 2000, 5000])
def test_high_and_low(number: int) -> None:
    ranked = sorted(SCORES.values())
    assert [SCORES[path] for path in choose(number, Strategy.LOW)] == ranked[:number]
    assert [SCORES[path] for path in choose(number, Strategy.HIGH)] == ranked[::-1][:number]


def test_uniform_takes_as_many_from_each_part_of_the_range() -> None:
    low, high = min(SCORES.values()), max(SCORES.values())

    def part(path: str) -> int:
        return min(19, int((SCORES[path] - low) * 20 / (high - low)))

    there = Counter(map(part, SCORES))
    chosen = choose(400, Strategy.UNIFORM)
    taken = Counter(map(part, chosen))
    assert len(set(chosen)) == 400
    largest = max(taken.values())
    # Water filling: a part gives all it has, or as many as the most generous, but for a rest that cannot be shared.
    assert all(taken[n] == there[n] or taken[n] >= largest - 1 for n in range(20))
    assert taken[0] == there[0] < largest  # the ends are rare, and all of them are there


def test_stratified_takes_as_many_from_each_part_of_the_ranking() -> None:
    ranked = sorted(SCORES.values())
    chosen = choose(200, Strategy.STRATIFIED)
    for n in range(20):
        lowest, highest = ranked[100 * n], ranked[100 * n + 99]
        inside = sum(lowest <= SCORES[path] <= highest for path in chosen)
        assert inside >= 10  # equal scores at an edge may be counted with either
    assert len(set(chosen)) == 200


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("number", [1, 3, 19, 20, 21, 1999])
def test_any_number_comes_out_and_by_rising_score(strategy: Strategy, number: int) -> None:
    chosen = choose(number, strategy)
    scores = [SCORES[path] for path in chosen]
    assert len(set(chosen)) == number
    assert scores == sorted(scores, reverse=strategy is Strategy.HIGH)


@pytest.mark.parametrize("strategy", [Strategy.UNIFORM, Strategy.STRATIFIED])
def test_few_come_from_end_to_end(strategy: Strategy) -> None:
    scores = [SCORES[path] for path in choose(5, strategy)]
    assert scores[0] < 0.45
    assert scores[-1] > 0.55


@pytest.mark.parametrize("strategy", Strategy)
def test_the_same_whatever_the_order(strategy: Strategy) -> None:
    shuffled = list(SCORES.items())
    RANDOM.shuffle(shuffled)
    assert choose(100, strategy) == choose(100, strategy, dict(shuffled))


@pytest.mark.parametrize("strategy", Strategy)
def test_the_same_wherever_the_files_lie(strategy: Strategy) -> None:
    """Named from another folder, or moved, they are the same pictures."""
    chosen = []
    for folder in ("photos", "/mnt/elsewhere", "../photos"):
        with Pool(0) as pool:
            pool.take(
                Row(path=f"{folder}/{path}", score=score, sha256=f"{n}")
                for n, (path, score) in enumerate(SCORES.items())
            )
            pool.choose(100, strategy)
            chosen.append({path.removeprefix(folder) for path in pool.chosen()})
    assert chosen[0] == chosen[1] == chosen[2]


@pytest.mark.parametrize("strategy", [Strategy.UNIFORM, Strategy.STRATIFIED])
def test_another_seed_is_another_choice(strategy: Strategy) -> None:
    first, second = choose(100, strategy), choose(100, strategy, seed=1)
    assert len(set(first) & set(second)) < 50


@pytest.mark.parametrize("strategy", Strategy)
def test_equal_scores(strategy: Strategy) -> None:
    assert len(set(choose(10, strategy, {f"{n}": 0.5 for n in range(40)}))) == 10


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("number", [3, 10, 40])
def test_of_a_file_and_its_copies_one_is_chosen(strategy: Strategy, number: int) -> None:
    rows = [Row(path=f"{copy}/{n}", score=n / 10, sha256=f"{n}") for copy in "bac" for n in range(10)]
    rows += [Row(path=f"unknown/{n}", score=0.5) for n in range(10)]  # of a table without digests
    RANDOM.shuffle(rows)
    with Pool(0) as pool:
        pool.take(rows)
        assert pool.choose(number, strategy) == min(number, 20)
        chosen = list(pool.chosen())
        assert (pool.size, pool.left_out) == (20, 20)
    assert len(set(chosen)) == len(chosen)
    assert {path.partition("/")[0] for path in chosen} <= {"a", "unknown"}, "of copies the one whose path comes first"
    with Pool(0, copies=True) as pool:
        pool.take(rows)
        assert pool.choose(100, strategy) == 40
        assert pool.left_out == 0


def test_what_has_no_score_is_counted() -> None:
    with Pool(0) as pool:
        pool.take([Row(path="a", score=0.5), Row(path="b", error="torn")])
        assert (pool.size, pool.unscored) == (1, 1)


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=20), st.integers(0, 400))
def test_quotas(sizes: list[int], number: int) -> None:
    shares = quotas(sizes, number)
    assert sum(shares) == min(number, sum(sizes))
    assert all(0 <= share <= size for share, size in zip(shares, sizes, strict=True))
    open_ = [share for share, size in zip(shares, sizes, strict=True) if share < size]
    if open_:  # nobody gives more than one beyond those that still have some
        assert max(shares) <= min(open_) + 1
