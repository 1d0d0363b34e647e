// SPDX-License-Identifier: GPL-2.0-only
/* hold DOMID REF...: maps the grants, prints their bytes, waits for a line. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

/* The header leaves these to its user. */
typedef uint32_t grant_ref_t;
typedef uint16_t domid_t;
#include <xen/gntdev.h>

int main(int argc, char **argv)
{
	struct ioctl_gntdev_map_grant_ref *op;
	int n = argc - 2, fd, i;
	char *page, c;

	fd = open("/dev/xen/gntdev", O_RDWR);
	op = calloc(1, sizeof(*op) + n * sizeof(op->refs[0]));
	if (fd < 0 || !op || n < 1)
		return 2;
	op->count = n;
	for (i = 0; i < n; i++) {
		op->refs[i].domid = atoi(argv[1]);
		op->refs[i].ref = atoi(argv[i + 2]);
	}
	if (ioctl(fd, IOCTL_GNTDEV_MAP_GRANT_REF, op)) {
		perror("map");
		return 1;
	}
	page = mmap(NULL, n * 4096UL, PROT_READ, MAP_SHARED, fd, op->index);
	if (page == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	if (write(1, page, n * 4096UL) != n * 4096L)
		return 1;
	close(1);
	return read(0, &c, 1) != 1;
}
