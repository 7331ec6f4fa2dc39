"""The policy as an ordinary module, in situations that are made up: one byte takes a nanosecond to copy."""

import sys
import unittest
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "sdk" / "python")]

from app import MyPolicy  # noqa: E402
from loadline_policy import Refusal  # noqa: E402
from loadline_policy.testing import Shape, Simulated, faults, situation  # noqa: E402


def residents(device: int, slots: int) -> int:
    """How many of 40 blocks of 100 bytes stay in `device` bytes."""
    s = situation([Shape("denoise", [100] * 40, compute_ns=100, passes=20)], device, {"slots": slots})
    plan = MyPolicy().decide(s, Simulated(s))
    assert faults(s, plan) == [], (device, slots)
    return len(plan.stages[0].residents())


class Plans(unittest.TestCase):
    def test_what_fits_stays_and_the_rest_is_streamed(self):
        for device, slots, expected in [(4000, 2, 40), (2000, 2, 18), (2000, 4, 16), (100, 2, 0)]:
            self.assertEqual(residents(device, slots), expected, (device, slots))

    def test_what_cannot_fit_is_refused_with_what_it_needs(self):
        with self.assertRaises(Refusal) as refused:
            residents(99, 2)
        self.assertEqual(refused.exception.needs, 100)


if __name__ == "__main__":
    unittest.main()
