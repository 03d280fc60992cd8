"""What several panels ask for alike."""

WINDOW = "[$__rate_interval]"
FIRING = 'ALERTS{alertstate="firing"}'
CALLERS = '{route=~"/v1/.+"}'  # what callers ask for, and not probes, scrapes and pages


def rate(counter: str, by: str = "") -> str:
    """Of a counter's events, in each second."""
    return f"sum{_by(by)} (rate({counter}{WINDOW}))"


def quantile(q: float, histogram: str, labels: str = "", by: str = "") -> str:
    """Of a histogram, e.g. 0.99."""
    buckets = f"sum by ({by + ', ' if by else ''}le) (rate({histogram}_bucket{labels}{WINDOW}))"
    return f"histogram_quantile({q}, {buckets})"


def mean(histogram: str, labels: str = "", by: str = "") -> str:
    total, count = (f"sum{_by(by)} (rate({histogram}_{what}{labels}{WINDOW}))" for what in ("sum", "count"))
    return f"{total} / {count}"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""
