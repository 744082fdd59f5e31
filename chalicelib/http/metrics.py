"""What `GET /twocloud/metrics` answers: what is known of each source, and what this process did, for Prometheus.

https://prometheus.io/docs/instrumenting/exposition_formats/. The library writes both formats and escapes the labels.
Importing it takes a tenth of a second, so this module is imported by the first request for metrics.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics

from .. import __version__
from ..access.tokens import Caller
from ..fleet.counters import CALL_SECONDS, REQUEST_SECONDS, Counters
from ..fleet.known_sources import SourceState
from ..fleet.schedule import LastRun
from ..model import Source, Status

OPENMETRICS = openmetrics.CONTENT_TYPE_LATEST
PLAIN = CONTENT_TYPE_PLAIN_0_0_4
EXPIRING_DAYS = (7, 30)
SOURCE = ("tenant_id", "party", "account", "region")


class _Families(NamedTuple):
    """As much of a registry as the library's writers use."""

    families: Sequence[Metric]

    def collect(self) -> Sequence[Metric]:
        return self.families


def write(families: Sequence[Metric], accept: str) -> tuple[str, bytes]:
    """The media type that the header Accept prefers, and the body."""
    registry: Any = _Families(families)
    if prefers_openmetrics(accept):
        return OPENMETRICS, cast(Any, openmetrics).generate_latest(registry)            # which has no types
    return PLAIN, generate_latest(registry)


def prefers_openmetrics(accept: str) -> bool:
    """Whether OpenMetrics 1.0 comes before the text format 0.0.4, which is the default (RFC 9110, 12.5.1)."""
    open_, plain = 0.0, 0.0
    for part in accept.lower().split(","):
        kind, *parameters = [it.strip() for it in part.split(";")]
        values = {name.strip(): value.strip(' "') for name, _, value in (it.partition("=") for it in parameters)}
        try:
            quality = min(1.0, max(0.0, float(values.get("q", "1"))))
        except ValueError:
            continue
        if kind == "application/openmetrics-text" and values.get("version", "1.0.0") == "1.0.0":
            open_ = max(open_, quality)
        elif kind == "text/plain" and values.get("version", "0.0.4") == "0.0.4":
            plain = max(plain, quality)
    return open_ > 0 and open_ >= plain


# ---------------------------------------------------------------- of the sources

def of_sources(states: Sequence[SourceState], now: float) -> Iterator[Metric]:
    """`now`: Unix time."""
    servers = GaugeMetricFamily("twocloud_servers", "Servers in the snapshot, by status.", labels=(*SOURCE, "status"))
    expiring = GaugeMetricFamily("twocloud_servers_expiring", "Servers in the snapshot that end within so many days.",
                                 labels=(*SOURCE, "days"))
    up = GaugeMetricFamily("twocloud_source_up", "1 if the source has a snapshot and its last listing succeeded.",
                           labels=SOURCE)
    age = GaugeMetricFamily("twocloud_source_age_seconds", "Age of the snapshot.", labels=SOURCE)
    interval = GaugeMetricFamily("twocloud_source_refresh_interval_seconds",
                                 "How often the schedule refreshes the snapshot.", labels=SOURCE)
    last_error = GaugeMetricFamily("twocloud_source_last_error", "1 for the error code of the last listing, if it "
                                   "failed.", labels=(*SOURCE, "error"))
    breaker = GaugeMetricFamily("twocloud_source_breaker_open", "1 while the circuit breaker is open.", labels=SOURCE)
    for state in states:
        labels = _labels(state.source)
        up.add_metric(labels, state.up)
        breaker.add_metric(labels, state.breaker_open)
        interval.add_metric(labels, state.every)
        if state.error:
            last_error.add_metric([*labels, state.error], 1)
        if state.head:
            age.add_metric(labels, max(0.0, now - state.head.seen_at))
        counts = state.head and state.head.counts
        if counts:
            for status, count in {Status.ACTIVE: 0, **counts.by_status}.items():
                servers.add_metric([*labels, status], count)
            for days in EXPIRING_DAYS:
                if (count := counts.ending(now + days * 86_400)) is not None:
                    expiring.add_metric([*labels, str(days)], count)
    yield from (servers, expiring, up, age, interval, last_error, breaker)


def _labels(source: Source) -> list[str]:
    return [source.tenant_id, source.party, source.account, source.region]


# ---------------------------------------------------------------- read again

def read_sources(text: str) -> list[dict[str, Any]]:
    """A row for each source of what `write` wrote as plain text, in their order."""
    from prometheus_client.parser import text_string_to_metric_families  # not for the service itself

    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not all(name in sample.labels for name in SOURCE):
                continue
            row = rows.setdefault(tuple(sample.labels[name] for name in SOURCE), {
                **{name: sample.labels[name] for name in SOURCE}, "state": "ok", "error": "", "age": None,
                "refresh_interval": None, "breaker_open": False, "servers": None, "by_status": {},
                "expiring_7d": None, "expiring_30d": None})
            _note(row, sample.name, sample.labels, sample.value)
    for row in rows.values():
        if row["state"] == "failed" and row["age"] is None and not row["error"]:
            row["state"] = "never_listed"
    return [rows[key] for key in sorted(rows)]


def _note(row: dict[str, Any], name: str, labels: Mapping[str, str], value: float) -> None:
    match name:
        case "twocloud_servers":
            row["servers"] = (row["servers"] or 0) + int(value)
            if value:
                row["by_status"][labels["status"]] = int(value)
        case "twocloud_servers_expiring":
            row[f"expiring_{labels['days']}d"] = int(value)
        case "twocloud_source_up":
            row["state"] = "ok" if value else "failed"
        case "twocloud_source_age_seconds":
            row["age"] = round(value)
        case "twocloud_source_refresh_interval_seconds":
            row["refresh_interval"] = round(value)
        case "twocloud_source_last_error":
            row["error"] = labels["error"]
        case "twocloud_source_breaker_open":
            row["breaker_open"] = bool(value)
        case _:
            pass


# ---------------------------------------------------------------- of the deployment and this process

def of_service(run: LastRun | None) -> Iterator[Metric]:
    """What `GET /twocloud/health` says without a token."""
    yield InfoMetricFamily("twocloud_build", "The version of twocloud.", {"version": __version__})
    if run:
        yield GaugeMetricFamily("twocloud_schedule_age_seconds", "Seconds since the schedule last ran.", run.age)
        yield GaugeMetricFamily("twocloud_schedule_late", "1 if the schedule has missed two runs.", run.late)


def of_process(counters: Counters, caller: Caller) -> Iterator[Metric]:
    """As far as the caller's token covers it."""
    requests = counters.requests(caller)
    count = CounterMetricFamily("twocloud_http_requests", "Requests answered.", labels=("route", "code"))
    for (route, status), number in sorted(requests.count.items()):
        count.add_metric([route, str(status)], number)
    yield count
    duration = HistogramMetricFamily("twocloud_http_request_duration_seconds",
                                     "From the request's arrival to its answer.", labels=())
    duration.add_metric([], _buckets(REQUEST_SECONDS, requests.durations), requests.seconds)
    yield duration
    calls = sorted(counters.calls(caller).items())
    count = CounterMetricFamily("twocloud_party_calls", "Calls to parties, by outcome: ok, cancelled or an error code.",
                                labels=("party", "outcome"))
    duration = HistogramMetricFamily("twocloud_party_call_duration_seconds", "Duration of one call to a party.",
                                     labels=("party",))
    for party, made in calls:
        for outcome, number in sorted(made.count.items()):
            count.add_metric([party, outcome], number)
        duration.add_metric([party], _buckets(CALL_SECONDS, made.durations), made.seconds)
    yield from (count, duration)


def _buckets(bounds: Sequence[float], durations: Sequence[int]) -> list[tuple[str, float]]:
    """The cumulative counts, by upper bound."""
    buckets, below = list[tuple[str, float]](), 0
    for bound, count in zip((*map(str, bounds), "+Inf"), durations, strict=True):
        below += count
        buckets.append((bound, below))
    return buckets
