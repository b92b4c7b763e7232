# SPDX-License-Identifier: GPL-2.0-only
"""Unit tests of the workbench: no QEMU, seconds. Those of verdicts use the unpacked source."""
