"""Every name that the queue uses in Redis; `scripts/common.lua` draws what lies behind each."""

from dataclasses import dataclass

GROUP = "workers"  # consumer group of the stream of jobs; scripts/common.lua has it too


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one queue.

    The prefix is a hash tag, so that in a cluster all of them lie on one node, where scripts need them.
    """

    prefix: str

    @property
    def jobs(self) -> str:
        return self._named("jobs")

    @property
    def deadlines(self) -> str:
        return self._named("deadlines")

    @property
    def workers(self) -> str:
        return self._named("workers")

    @property
    def dead(self) -> str:
        return self._named("dead")

    def job(self, job_id: str) -> str:
        return self._named("job:") + job_id

    def pixels(self, caller: str) -> str:
        return self._named("pixels:") + caller

    def result(self, job_id: str) -> str:
        return self._named("result:") + job_id

    def answers(self, gateway: str) -> str:
        return self._named("answers:") + gateway

    @property
    def for_scripts(self) -> tuple[str, ...]:
        """KEYS of every script; to the later ones a script appends whose they are."""
        shared = (self.jobs, self.deadlines, self.workers, self.dead)
        return (*shared, self.job(""), self.pixels(""), self.result(""), self.answers(""))

    def _named(self, name: str) -> str:
        return f"{{{self.prefix}}}:{name}"
