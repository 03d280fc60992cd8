"""The model: what it says of pictures, and whether they are still those that it was made for."""

from expressions import mean, quantile, rate
from grafana_foundation_sdk.builders.dashboard import Dashboard
from panels import board, density, lines, number, row


def build() -> Dashboard:
    model = board("clicv2-model", "CLICv2: model", "What the model says, and whether the pictures have changed.")
    for panel in (
        number(
            "Serves",
            "Name, version and the first digits of the file's SHA-256.",
            "none",
            'max by (name, version, digest) (label_replace(clicv2_model_info, "digest", "$1", "sha256", "(.{12}).*"))',
            legend="{{name}} {{version}} {{digest}}",
            width=6,
        ),
        number(
            "Versions",
            "That gateways and workers know to answer; 2 for long: somebody has not noticed.",
            "none",
            "count(count by (version) (clicv2_model_info))",
            bad_above=2,
        ),
        number(
            "PSI of an hour",
            "How far the scores are from the reference's: above 0.25 it is another kind of pictures.",
            "none",
            "max(clicv2:score_psi:psi1h)",
            bad_above=0.25,
        ),
        number("Pictures in it", "Below 300 the index says little.", "none", "sum(clicv2:scores:increase1h)"),
        number("Mean score", "0 to 1.", "none", mean("clicv2_score")),
        number("Mean entropy", "Label-free, 0 to 1.", "none", mean("clicv2_entropy")),
        number(
            "Builds",
            "Versions of the code that run; 2 while it is replaced.",
            "none",
            "count(count by (version) (clicv2_build_info))",
            bad_above=2,
        ),
    ):
        model = model.with_panel(panel)

    model = model.with_row(row("Drift"))
    for panel in (
        lines(
            "Population stability index",
            "Of the scores of an hour, against the reference in the model's manifest.",
            "none",
            ("clicv2:score_psi:psi1h", "version {{version}}"),
            bad_above=0.25,
        ),
        lines(
            "Share of each tenth of the reference",
            "A tenth in each, if the pictures are like the reference's; 1 has the simplest.",
            "percentunit",
            ("sum by (decile) (clicv2:score_deciles:share1h)", "{{decile}}"),
            stacked=True,
        ),
        lines(
            "Mean score and entropy",
            "The entropy has seen no human rating: if only one of the two moves, it is the readout.",
            "none",
            (mean("clicv2_score", by="version"), "score, version {{version}}"),
            (mean("clicv2_entropy", by="version"), "entropy, version {{version}}"),
        ),
        density(
            "Scores",
            "How many were how complex.",
            "none",
            "sum by (le) (increase(clicv2_score_bucket[$__rate_interval]))",
            width=12,
        ),
        density(
            "Entropies",
            "The same, label-free.",
            "none",
            "sum by (le) (increase(clicv2_entropy_bucket[$__rate_interval]))",
            width=12,
        ),
    ):
        model = model.with_panel(panel)

    model = model.with_row(row("Pictures"))
    for panel in (
        lines(
            "Size",
            "Pixels, of those answered.",
            "none",
            *((quantile(q, "clicv2_image_pixels"), f"p{round(q * 100)}") for q in (0.5, 0.95)),
        ),
        lines(
            "Bytes of a request",
            "One picture, or a whole batch.",
            "bytes",
            *(
                (quantile(q, "clicv2_upload_bytes", by="route"), f"p{round(q * 100)} {{{{route}}}}")
                for q in (0.5, 0.95)
            ),
        ),
        lines(
            "Time in the model",
            "Of a backend call.",
            "s",
            *(
                (quantile(q, "clicv2_stage_duration_seconds", '{stage="inference"}'), f"p{round(q * 100)}")
                for q in (0.5, 0.95, 0.99)
            ),
        ),
        lines(
            "Time to decode",
            "With the wait for a core.",
            "s",
            *(
                (quantile(q, "clicv2_stage_duration_seconds", '{stage="decode"}'), f"p{round(q * 100)}")
                for q in (0.5, 0.95, 0.99)
            ),
        ),
        lines(
            "Pictures by URL",
            "By how the fetch ended, and the time that 95 of 100 took; no data where none are fetched.",
            "s",
            (quantile(0.95, "clicv2_fetch_duration_seconds", by="outcome"), "p95 {{outcome}}"),
        ),
        lines(
            "Readiness probes", "Pictures of our own.", "cps", (rate("clicv2_probes_total", "outcome"), "{{outcome}}")
        ),
    ):
        model = model.with_panel(panel)
    return model
