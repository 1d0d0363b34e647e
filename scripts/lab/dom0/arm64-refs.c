// SPDX-License-Identifier: GPL-2.0-only
/*
 * Prints the references that a domain grants to the control domain, which runs
 * this, by looking into that domain's grant table.
 *
 *   arm64-refs DOMID COUNT
 *
 * The domain has no xenstore to tell them with.  Fails if there are not COUNT of
 * them (yet).
 */
#include "gntdev_test.h"
#include <err.h>

#define GTF_PERMIT_ACCESS	1
#define GTF_TYPE_MASK		3
#define FRAMES			4

int main(int argc, char **argv)
{
	struct test_mmap_resource res = {
		.type = RESOURCE_GRANT_TABLE,
		.num = 1,
	};
	const int per_frame = PAGE / sizeof(struct grant_entry_v1);
	struct grant_entry_v1 *frame;
	int count, i, n = 0;

	if (argc != 3)
		errx(2, "usage: arm64-refs DOMID COUNT");
	res.dom = atoi(argv[1]);
	count = atoi(argv[2]);
	for (res.idx = 0; n < count && res.idx < FRAMES; res.idx++) {
		frame = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, privcmd_fd(), 0);
		if (frame == MAP_FAILED)
			err(1, "/dev/xen/privcmd");
		res.addr = (uintptr_t)frame;
		if (ioctl(privcmd_fd(), TEST_PRIVCMD_MMAP_RESOURCE, &res))
			err(1, "frame %u of the grant table of domain %u", res.idx, res.dom);
		for (i = 0; n < count && i < per_frame; i++) {
			if ((frame[i].flags & GTF_TYPE_MASK) != GTF_PERMIT_ACCESS || frame[i].domid)
				continue;
			printf("%s%u", n ? " " : "", res.idx * per_frame + i);
			n++;
		}
	}
	printf("\n");
	if (n < count)
		errx(1, "domain %u grants %d pages, not %d", res.dom, n, count);
	return 0;
}
