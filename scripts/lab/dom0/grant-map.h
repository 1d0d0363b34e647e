/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LAB_GRANT_MAP_H
#define LAB_GRANT_MAP_H

/*
 * Maps granted pages through /dev/xen/gntdev, for the lab's programs that run in
 * dom0.  These are tools: any error ends the program.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE	/* O_DIRECT, vmsplice() */
#endif
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/types.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* The kernel's header takes these from Xen's own, which need not be installed. */
typedef __u32 grant_ref_t;
typedef __u16 domid_t;
#include <xen/gntdev.h>

#define PAGE 4096UL

struct grants {
	__u32 domid;
	__u32 count;
	__u32 *refs;
};

static inline __u32 parse_u32(const char *what, const char *text)
{
	char *end;
	unsigned long value;

	errno = 0;
	value = strtoul(text, &end, 0);
	if (errno || end == text || *end || *text == '-' || value > UINT_MAX)
		errx(2, "%s: '%s' is not a number", what, text);
	return value;
}

/* DOMID REF... as the remaining arguments of a command line. */
static inline struct grants parse_grants(char **argv)
{
	struct grants g = { 0 };
	char **arg;

	if (!argv[0] || !argv[1])
		errx(2, "DOMID and at least one REF are needed");
	g.domid = parse_u32("DOMID", argv[0]);
	for (arg = argv + 1; *arg; arg++)
		g.count++;
	g.refs = calloc(g.count, sizeof(*g.refs));
	if (!g.refs)
		err(2, "memory for %u grant references", g.count);
	for (__u32 i = 0; i < g.count; i++)
		g.refs[i] = parse_u32("REF", argv[i + 1]);
	return g;
}

static inline int must_open(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0)
		err(2, "%s", path);
	return fd;
}

/* The argument of the ioctl for the first count references. */
static inline struct ioctl_gntdev_map_grant_ref *map_op(const struct grants *g, __u32 count)
{
	struct ioctl_gntdev_map_grant_ref *op;

	op = calloc(1, sizeof(*op) + count * sizeof(op->refs[0]));
	if (!op)
		err(2, "memory for %u grant references", count);
	op->count = count;
	for (__u32 i = 0; i < count; i++) {
		op->refs[i].domid = g->domid;
		op->refs[i].ref = g->refs[i];
	}
	return op;
}

/* Maps the first count references; the device stays open until the program ends. */
static inline void *grants_map(const struct grants *g, __u32 count)
{
	struct ioctl_gntdev_map_grant_ref *op = map_op(g, count);
	int fd = must_open("/dev/xen/gntdev", O_RDWR);
	void *addr;

	if (ioctl(fd, IOCTL_GNTDEV_MAP_GRANT_REF, op))
		err(2, "IOCTL_GNTDEV_MAP_GRANT_REF of %u pages", count);
	addr = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, op->index);
	if (addr == MAP_FAILED)
		err(2, "mmap of %u granted pages", count);
	free(op);
	return addr;
}

#endif
