"""Every name that jobs use in Redis; `scripts/common.lua` draws what lies behind each."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of all jobs of one service.

    The prefix is a hash tag, the queue's, so that in a cluster all of them lie on one node, where scripts need them.
    """

    prefix: str

    @property
    def open(self) -> str:
        return self._named("open")

    @property
    def expiry(self) -> str:
        return self._named("expiry")

    def job(self, job_id: str) -> str:
        return self._named("job:") + job_id

    def picture(self, job_id: str, place: int) -> str:
        return f"{self._named('picture:')}{job_id}:{place}"

    def results(self, job_id: str) -> str:
        return self._named("results:") + job_id

    def events(self, job_id: str) -> str:
        return self._named("events:") + job_id

    @property
    def for_scripts(self) -> tuple[str, ...]:
        """KEYS of every script; to the later ones a script appends whose they are."""
        shared = (self._named("totals"), self.open, self.expiry, self._named("hooks"))
        each = ("job:", "items:", "left:", "picture:", "results:", "events:", "slot:")
        return (*shared, *(self._named(name) for name in each))

    def _named(self, name: str) -> str:
        return f"{{{self.prefix}}}:bulk:{name}"
