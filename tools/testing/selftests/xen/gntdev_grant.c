// SPDX-License-Identifier: GPL-2.0-only
/*
 * Grants pages to another domain until the end of its input.
 *
 *   gntdev_grant DOMID COUNT
 *
 * prints the references on one line and waits for the end of its input.  Then
 * the other domain should have unmapped them: the exit status is 0 if none is
 * mapped any more within five seconds, else 1, and it prints those that are.
 *
 * For tests in a guest that maps the control domain's pages.
 */
#include "gntdev_test.h"

int main(int argc, char **argv)
{
	struct ioctl_gntalloc_alloc_gref *op;
	struct grants g = { .source = GRANTS_OWN };
	int i, fd, left;
	char c;

	if (argc != 3) {
		fprintf(stderr, "usage: %s DOMID COUNT\n", argv[0]);
		return 2;
	}
	g.n = atoi(argv[2]);
	if (g.n < 1 || g.n > GRANTS_MAX) {
		fprintf(stderr, "from 1 to %d grants\n", GRANTS_MAX);
		return 2;
	}
	fd = open("/dev/xen/gntalloc", O_RDWR);
	op = calloc(1, sizeof(*op) + (g.n + 1) * sizeof(uint32_t));
	if (fd < 0 || !op) {
		perror("/dev/xen/gntalloc");
		return 2;
	}
	op->domid = atoi(argv[1]);
	op->flags = GNTALLOC_FLAG_WRITABLE;
	op->count = g.n + 1;
	if (ioctl(fd, IOCTL_GNTALLOC_ALLOC_GREF, op)) {
		perror("IOCTL_GNTALLOC_ALLOC_GREF");
		return 2;
	}
	memcpy(g.ref, op->gref_ids, g.n * sizeof(uint32_t));
	g.idle = op->gref_ids[g.n];
	for (i = 0; i < g.n; i++)
		printf("%u%c", g.ref[i], i == g.n - 1 ? '\n' : ' ');
	fflush(stdout);

	while (read(0, &c, 1) > 0)
		;
	if (grants_wait_unused(&g, 5000) < 0) {
		left = grants_in_use(&g, 0, g.n);
		fprintf(stderr, "%d grants are still mapped:", left);
		for (i = 0; i < g.n; i++) {
			if (grant_in_use(&g, i) > 0)
				fprintf(stderr, " %u", g.ref[i]);
		}
		fprintf(stderr, "\n");
		return 1;
	}
	return 0;
}
