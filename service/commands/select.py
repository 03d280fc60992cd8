"""`clicv2 select`: a part of a set of pictures, by their complexity."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from service.commands.options import read_settings
from service.commands.scores import (
    STOPPED,
    Concurrency,
    PathsOrNone,
    Repository,
    Scores,
    Zero,
    ending_in_words,
    known_rows,
    local_scorer,
    note,
    paths_or_scores,
    scored_rows,
)
from service.files.linking import link, open_folder, print_list
from service.files.selection import Pool, Strategy
from service.files.stopping import Stop


def select(
    paths: PathsOrNone = None,
    number: Annotated[int, typer.Option("--n", "-n", min=1, help="How many.")] = 1000,
    strategy: Annotated[Strategy, typer.Option(help="See above.")] = Strategy.UNIFORM,
    seed: Annotated[int, typer.Option(help="Of chance, where it decides; the same gives the same.")] = 0,
    links: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, help="Make links here instead of a list; a new or empty folder.", show_default=False
        ),
    ] = None,
    copies: Annotated[
        bool, typer.Option("--copies", help="Let a file's copies be chosen too, instead of one of them.")
    ] = False,
    scores: Scores = None,
    concurrency: Concurrency = None,
    zero: Zero = False,
    model_repository: Repository = None,
) -> None:
    """Choose pictures by their complexity: a list of paths, or a folder of links, by rising score, and by falling
    score with --strategy high. The same pictures and the same seed give the same choice, in whatever order they come.
    Of a file that is there several times only one is chosen.

    \b
    uniform     equally many from each twentieth of the range of scores, so
                that simple, middling and complex ones are equally frequent
    stratified  equally many from each twentieth of the ranked pictures, so
                that the distribution is the set's own, its ends included
    high, low   the most, the least complex

    \b
    clicv2 select photos/ --n 1000 --strategy uniform > chosen.txt
    clicv2 select --scores scores.csv -n 200 --strategy high --links hardest/
    clicv2 select --scores scores.csv -n 50 --null | xargs -0 cp -t subset/
    """
    named = paths_or_scores(paths, scores)
    settings = read_settings(model_repository=model_repository)
    with ending_in_words(), ExitStack() as after:
        stop = after.enter_context(Stop())
        if links:
            open_folder(links)
        pool = after.enter_context(Pool(seed, copies=copies))
        if scores:
            pool.take(known_rows(named, scores, stop))
        else:
            threads = concurrency or settings.threads
            pool.take(scored_rows(named, local_scorer(settings, threads), threads, stop, zero=zero))
        if stop.asked:
            note(STOPPED)
            raise typer.Exit(stop.exit_code)
        if pool.unscored:
            note(f"{pool.unscored:,} files could not be scored, and cannot be chosen")
        chosen = pool.choose(number, strategy) if pool.size else 0
        if pool.left_out:
            note(f"copies of other files that were left out: {pool.left_out:,}; --copies lets them in")
        if chosen < number:
            note(f"there are only {chosen:,} pictures to choose from")
        listed = pool.chosen(most_complex_first=strategy is Strategy.HIGH) if chosen else iter(())
        if links:
            made, gone = link(listed, links)
            note(f"{links} has {made:,} pictures" + (f"; {gone:,} are no longer there" if gone else ""))
        else:
            print_list(listed, zero=zero)
