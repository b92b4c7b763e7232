# SPDX-License-Identifier: GPL-2.0-only
"""The workbench: builds kernels, boots them in emulated machines, and sums up."""
