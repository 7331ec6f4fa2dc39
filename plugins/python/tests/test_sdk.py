"""The SDK in CPython: layouts against the checker, homes, and the example."""

import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "frugal")]

from frugal import Frugal  # noqa: E402
from loadline_policy import DISK, HOST, PINNED, Plan, Refusal, Split, StagePlan, duration, size, spread  # noqa: E402
from loadline_policy.testing import Shape, Simulated, faults, situation  # noqa: E402

ALIKE = [Shape("denoise", [100] * 20, compute_ns=150, passes=10, activations=30)]
MIXED = [
    Shape("encode", [70, 40, 40, 40, 5], compute_ns=10, passes=2, activations=50),
    Shape("denoise", [30] + [100] * 17 + [60] * 9 + [7], compute_ns=90, passes=12, activations=40),
    Shape("decode", [12, 13, 14], compute_ns=500, passes=3, activations=200),
]


class Layouts(unittest.TestCase):
    def test_every_room_and_number_of_slots_gives_a_plan_that_may_run(self):
        for device in range(250, 2600, 37):
            for slots in range(1, 7):
                s = situation(MIXED, device)
                stages = [StagePlan.within(stage, s.room(stage, device), slots) for stage in s.stages]
                self.assertNotIn(None, stages, device)
                self.assertEqual(faults(s, Plan.of(s.job, s.budget, stages)), [], (device, slots))

    def test_what_does_not_fit_has_no_plan(self):
        s = situation(ALIKE, 129)
        self.assertIsNone(StagePlan.within(s.stages[0], s.room(s.stages[0], 129)))
        self.assertEqual(s.smallest(s.stages[0]), 130)

    def test_as_many_stream_as_are_told(self):
        stage = situation(ALIKE, 1000).stages[0]
        for count, streamed in [(0, 0), (2, 0), (3, 3), (10, 10), (20, 20), (99, 20)]:
            plan = StagePlan.rolling(stage, Split.count(stage, count), 2)
            self.assertEqual(len(plan.streamed()), streamed, count)

    def test_kept_slots_are_those_that_are_loaded_once(self):
        stage = situation(ALIKE, 1000).stages[0]
        plan = StagePlan.within(stage, 1000, 2)
        self.assertEqual(plan.summary(), "8 blocks resident, 12 streamed through 2 slots")
        self.assertEqual(plan.kept().kept_bytes(64), 8 * 128)

    def test_spread_is_even(self):
        self.assertEqual(spread(range(10), 3), [3, 6, 9])
        self.assertEqual(spread(range(4), 4), [0, 1, 2, 3])


class Homes(unittest.TestCase):
    def homes(self, host, pinned):
        s = situation(ALIKE, 230)
        s.budget.host, s.budget.pinned = host, pinned
        stage = StagePlan.within(s.stages[0], s.room(s.stages[0], 230), 2)
        return Plan.of(s.job, s.budget, [stage]).homes

    def test_the_nearest_memory_is_filled_first(self):
        for host, pinned, expected in [
            (9999, 9999, (20, 0, 0)),
            (9999, 500, (5, 15, 0)),
            (1000, 500, (5, 4, 11)),
            (99, 99, (0, 0, 20)),
        ]:
            homes = self.homes(host, pinned)
            self.assertEqual((homes.count(PINNED), homes.count(HOST), homes.count(DISK)), expected)


class Example(unittest.TestCase):
    def decided(self, device, **settings):
        # A copy takes two thirds of the computing that it hides behind.
        shape = Shape("denoise", [100 << 20] * 20, compute_ns=150 << 20, passes=10, activations=30 << 20)
        s = situation([shape], device, {"slower_percent": 2, "slots": 3} | settings)
        host = Simulated(s)
        plan = Frugal().decide(s, host)
        self.assertEqual(faults(s, plan), [])
        return s, plan, host

    def test_memory_that_saves_no_time_is_left(self):
        s, plan, host = self.decided(4 << 30)
        self.assertLess(plan.stages[0].held(s.stages[0]), 400 << 20)
        self.assertLessEqual(host.forecast(plan).cold_ns, 1.02 * host.forecast(self.whole(s)).cold_ns)

    def test_more_time_takes_no_more_memory(self):
        held = []
        for percent in (0, 2, 10, 50, 400):
            s, plan, _ = self.decided(1 << 30, slower_percent=percent)
            held.append(plan.stages[0].held(s.stages[0]))
        self.assertEqual(held, sorted(held, reverse=True))

    def test_pressure_takes_a_quarter(self):
        s, plan, host = self.decided(1 << 30, slower_percent=0)
        before = int.from_bytes(plan.memo, "little")
        s.cause, s.memo = 2, plan.memo
        self.assertLessEqual(int.from_bytes(Frugal().decide(s, host).memo, "little"), before * 3 // 4)

    def whole(self, s):
        return Plan.of(s.job, s.budget, [StagePlan.within(stage, 4 << 30, 3) for stage in s.stages])

    def test_no_room_is_refused_with_what_is_needed(self):
        with self.assertRaises(Refusal) as caught:
            self.decided(129 << 20)
        self.assertEqual((caught.exception.stage, caught.exception.needs), (0, 130 << 20))


class Texts(unittest.TestCase):
    def test_numbers_read_as_in_the_tables(self):
        for count, text in [(1023, "1023 B"), (1025, "1.01 KiB"), ((10 << 30) + 1, "10.1 GiB"), (100 << 20, "100 MiB")]:
            self.assertEqual(size(count), text)
        for ns, text in [(999, "999 ns"), (4_549_000, "4.5 ms"), (1_234_000_000, "1.23 s"), (12_300_000_000, "12.3 s")]:
            self.assertEqual(duration(ns), text)


if __name__ == "__main__":
    unittest.main()
