"""`clicv2 score`: a row for each of any number of pictures."""

import sys
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from service.commands.options import or_exit, read_settings
from service.commands.scores import (
    Concurrency,
    Paths,
    Repository,
    Zero,
    bar_of,
    ending_in_words,
    finder_of,
    local_scorer,
    new_rows,
    note,
)
from service.files.errors import FilesError
from service.files.finding import Finder
from service.files.heatmaps import Heatmaps
from service.files.outputs import Form, form_of, open_output
from service.files.pipeline import Scorer
from service.files.score_file import Tally
from service.files.seen import Seen
from service.files.stopping import Stop
from service.settings import Settings

Server = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Ask a service instead; its key is CLICV2_API_KEY.", show_default=False),
]

_SERVER_CONCURRENCY = 8


def score(
    paths: Paths,
    form: Annotated[
        Form | None,
        typer.Option("--format", help="By the name of --output, else table.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", dir_okay=False, help="File to write, or to continue.", show_default=False),
    ] = None,
    retry_errors: Annotated[
        bool,
        typer.Option("--retry-errors", help="Try what has an error in --output again; its row is taken out first."),
    ] = False,
    heatmaps: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for overlays; the rows say which is whose.", show_default=False),
    ] = None,
    server: Server = None,
    timeout_s: Annotated[
        float,
        typer.Option("--timeout", metavar="SECONDS", min=1, help="Of a picture at the server, with all tries again."),
    ] = 60.0,
    concurrency: Concurrency = None,
    zero: Zero = False,
    json_lines: Annotated[bool, typer.Option("--json", help="The same as --format jsonl.")] = False,
    model_repository: Repository = None,
) -> None:
    """Score pictures on this machine, by the very road that the service uses, or through a service. A picture that
    cannot be scored is a row with its error, and the exit status is 1 at the end. With --output the same command goes
    on where it was stopped, by Ctrl-C or a power cut: what has its row is not scored again, unless it is an error and
    you say --retry-errors, for you have mended the disk, say.

    \b
    clicv2 score photo.jpg
    clicv2 score photos/ shards/00.tar --output scores.csv
    clicv2 score photos/ --output scores.csv --retry-errors
    clicv2 score 'photos/**/*.png' --output scores.parquet --heatmaps maps/
    find . -name '*.jpg' -print0 | clicv2 score -0 - --format jsonl
    curl https://example.org/photo.jpg | clicv2 score -
    clicv2 score photos/ --server https://complexity.example --output scores.csv
    """
    wanted = or_exit(lambda: form_of(output, Form.JSONL if json_lines else form))
    if retry_errors and output is None:
        note("--retry-errors is for a file of scores that there is: name it with --output")
        raise typer.Exit(2)
    settings = read_settings(model_repository=model_repository)
    threads = concurrency or (_SERVER_CONCURRENCY if server else settings.threads)
    finder = finder_of(paths, zero=zero, skip=heatmaps)
    tally = Tally()
    with ending_in_words(), ExitStack() as after:
        stop = after.enter_context(Stop())
        maps = Heatmaps.into(heatmaps) if heatmaps else None
        scorer = after.enter_context(_scorer(settings, server, timeout_s, threads, maps))
        sink = after.enter_context(open_output(output, wanted, scorer.making))
        seen = after.enter_context(Seen())
        if retry_errors and (forgotten := sink.forget_errors()):
            note(f"rows with errors that were taken out of {output}, to be tried again: {forgotten:,}")
        for row in sink.prior():
            seen.before(row.path)
            tally.add(row)
        before = tally.rows
        alone = output is not None or not sys.stdout.isatty()  # on one terminal, rows that scroll by are the progress
        bar = bar_of(finder, "scoring", before, shown=alone)
        try:
            for row in new_rows(finder, seen, scorer, threads, stop, bar):
                sink.write(row)
                tally.add(row)
        except FilesError:
            if sink.place:
                note(_unfinished(sink.place, tally))
            raise
        if not stop.asked:
            sink.finish()
        _tell(finder, seen, tally, before, sink.place, stop)
    if stop.asked:
        raise typer.Exit(stop.exit_code)
    if tally.errors:
        raise typer.Exit(1)


def _scorer(
    settings: Settings, server: str | None, timeout_s: float, threads: int, heatmaps: Heatmaps | None
) -> AbstractContextManager[Scorer]:
    if server is None:
        return nullcontext(local_scorer(settings, threads, heatmaps))
    from service.files.remote import RemoteScorer

    return or_exit(lambda: RemoteScorer(server, timeout_s, settings.model, settings.max_upload_bytes, heatmaps))


def _tell(finder: Finder, seen: Seen, tally: Tally, before: int, place: Path | None, stop: Stop) -> None:
    """What rows do not say, if there is anything."""
    if stop.asked and place:
        note(_unfinished(place, tally))
    elif place:
        there = f", {before:,} of them there already" if before else ""
        note(f"{place} has {tally.rows:,} rows{there}; {tally.errors:,} could not be scored")
    elif tally.errors:
        note(f"{tally.errors:,} of {tally.rows:,} could not be scored")
    if seen.again:
        note(f"paths that came more than once, and have one row each: {seen.again:,}")
    if finder.linked:
        note(f"links to folders that were not followed; name them if you want what is there: {finder.linked:,}")
    if not tally.rows and not stop.asked:
        note("there are no pictures (.jpg, .jpeg, .png, .webp, or tars with these)")


def _unfinished(place: Path, tally: Tally) -> str:
    return f"stopped; {place} has {tally.rows:,} rows, and the same command goes on with it"
