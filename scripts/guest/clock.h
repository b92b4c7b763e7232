/* SPDX-License-Identifier: GPL-2.0-only */
/* The time. Not for init.c, since 6.12's nolibc does not tell it */

/* Nanoseconds since the kernel's clock has started */
static long long now(void)
{
	struct timespec t;

	if (clock_gettime(CLOCK_MONOTONIC, &t))
		ksft_exit_fail_perror("clock_gettime");
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}
