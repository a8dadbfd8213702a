"""What befalls replicas and their database, and when it did, for whoever reads of a failure."""

import asyncio
import time
from random import Random

import psycopg
from e2e.chaos import Replicas

STOPPED_S = 13.0
"""Longer than a lease, 9 s, and than its renewal, 3 s."""

OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < 0.5
"""

REFUSAL = """
CREATE TABLE refused (pid text, until timestamptz);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM refused WHERE NEW.owner LIKE '%-' || pid || '-%' AND clock_timestamp() < until) THEN
        RAISE EXCEPTION 'the disk, a test says' USING ERRCODE = '58030';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON lease
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();
"""
"""A transaction that renews leases is told of each that it has it, and rolled back at its COMMIT."""

REFUSE = "INSERT INTO refused VALUES ('{pid}', clock_timestamp() + interval '{for_s} seconds')"


WHEN = {
    "stop": (0.15, 0.45, 0.75),
    "restart": (0.3, 0.65),
    "end": (0.05, 0.2, 0.4, 0.55, 0.85),
    "roll back": (0.1, 0.25, 0.5, 0.6, 0.8),
}
"""What befalls them beside kills, by the shares of the time that are over by then."""


class Troubles:
    """Does to the replicas what it is asked to, one thing at a time to the database. `story` says what, and when."""

    def __init__(self, replicas: Replicas, *, dice: Random) -> None:
        self.story: list[str] = []
        self._replicas = replicas
        self._dice = dice
        self.began_at = time.monotonic()
        self._database = asyncio.Lock()

    async def prepare(self) -> None:
        """Make the database able to refuse a renewal."""
        await self._run(REFUSAL)

    async def kill(self, place: int) -> None:
        self.say(f"kill {place}")
        await self._replicas.kill(place)

    async def stop_past_the_lease(self, place: int) -> None:
        await self._replicas.stop(place)
        self.say(f"stopped {place}")
        await asyncio.sleep(STOPPED_S)
        self._replicas.go_on(place)
        self.say(f"{place} goes on")

    async def restart_database(self) -> None:
        async with self._database:
            self.say("the database restarts")
            await asyncio.to_thread(self._replicas.server.stop)
            await asyncio.to_thread(self._replicas.server.start)
            self.say("the database is back")

    async def end_backends(self) -> None:
        self.say("half of all backends end")
        await self._run(OTHERS)

    async def roll_back_renewals(self, place: int, *, for_s: float) -> None:
        self.say(f"renewals of {place} are rolled back for {for_s:.1f} s")
        await self._run(REFUSE.format(pid=self._replicas.lives[place].pid, for_s=for_s))

    async def all_of_them(self, *, for_s: float) -> None:
        """Do everything by chance for so long: a kill every few seconds, and the rest now and then."""
        async with asyncio.timeout(for_s + 120), asyncio.TaskGroup() as group:
            group.create_task(self._kills(for_s))
            for what, shares in WHEN.items():
                for share in shares:
                    group.create_task(self._later(share * for_s, what))

    async def _kills(self, for_s: float) -> None:
        until = time.monotonic() + for_s
        while time.monotonic() < until:
            await asyncio.sleep(self._dice.uniform(3.0, 7.0))
            await self.kill(self._any_place())

    async def _later(self, after_s: float, what: str) -> None:
        await asyncio.sleep(after_s)
        match what:
            case "stop":
                await self.stop_past_the_lease(self._any_place())
            case "restart":
                await self.restart_database()
            case "end":
                await self.end_backends()
            case "roll back":
                await self.roll_back_renewals(self._any_place(), for_s=self._dice.uniform(1.0, 14.0))

    def _any_place(self) -> int:
        return self._dice.choice([place for place in self._replicas.lives if place not in self._replicas.in_trouble])

    async def _run(self, statement: str) -> None:
        async with self._database:
            try:
                await asyncio.to_thread(self._replicas.server.run, statement, self._replicas.database)
            except psycopg.errors.AdminShutdown:
                self.say("the own connection ended")

    def say(self, what: str) -> None:
        self.story.append(f"{time.monotonic() - self.began_at:7.2f} s: {what}")
