# SPDX-License-Identifier: GPL-2.0-only
"""The exit status of every verb."""

AS_EXPECTED = 0
NOT_AS_EXPECTED = 1
NOT_FOUND_OUT = 2


class CannotTell(Exception):
    """What was asked for could not be found out. The text is one clear line."""
