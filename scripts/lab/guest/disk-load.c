// SPDX-License-Identifier: GPL-2.0-only
/*
 * I/O with O_DIRECT on a disk, in a guest, many requests at once:
 *
 *   disk-load write|read|verify DISK AT-MIB MIB KIB DEPTH SEED [N [UNMARKED]]
 *
 * Takes the MIB of the disk from AT-MIB on as blocks of KIB, and does a request for
 * each, in an order that looks random, DEPTH of them at once.  "write" fills them with
 * bytes that depend on the SEED and on their place, "verify" reads them and compares,
 * "read" only reads.  With N there are so many requests, and the blocks are taken again
 * and again; with UNMARKED, what runs when so many are done is between marks for
 * lab/host/plugin.c.
 */
#include "../host/bench-marks.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX	256
/* Any odd number is coprime to a power of two; this one also to what it is used for. */
#define STEP		1000003UL

static unsigned long number(const char *word)
{
	char *end;
	unsigned long n = strtoul(word, &end, 10);

	if (!*word || *end)
		errx(2, "not a number: %s", word);
	return n;
}

/* What the 8 bytes at that place of the disk are. */
static uint64_t word_at(uint64_t seed, uint64_t place)
{
	uint64_t z = seed * 0x9e3779b97f4a7c15ULL + place;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	return z ^ (z >> 27);
}

static void fill(uint64_t *buf, size_t size, uint64_t seed, uint64_t place)
{
	for (size_t i = 0; i < size / sizeof(*buf); i++)
		buf[i] = word_at(seed, place + i * sizeof(*buf));
}

static void check(const uint64_t *buf, size_t size, uint64_t seed, uint64_t place)
{
	for (size_t i = 0; i < size / sizeof(*buf); i++, place += sizeof(*buf))
		if (buf[i] != word_at(seed, place))
			errx(1, "wrong bytes at %llu: %016llx, not %016llx",
			     (unsigned long long)place, (unsigned long long)buf[i],
			     (unsigned long long)word_at(seed, place));
}

int main(int argc, char **argv)
{
	static struct iocb iocbs[DEPTH_MAX];
	struct iocb *free_iocbs[DEPTH_MAX], *io;
	struct io_event events[DEPTH_MAX];
	unsigned long at, size, blocks, depth, seed, requests, unmarked;
	unsigned long started = 0, done = 0;
	bool writes, verifies;
	io_context_t ctx = NULL;
	int fd, n;
	char *buf;

	if (argc < 8 || argc > 10)
		errx(2, "usage: write|read|verify DISK AT-MIB MIB KIB DEPTH SEED [N [UNMARKED]]");
	writes = !strcmp(argv[1], "write");
	verifies = !strcmp(argv[1], "verify");
	at = number(argv[3]) << 20;
	size = number(argv[5]) << 10;
	blocks = size ? (number(argv[4]) << 20) / size : 0;
	depth = number(argv[6]);
	seed = number(argv[7]);
	requests = argc > 8 ? number(argv[8]) : blocks;
	unmarked = argc > 9 ? number(argv[9]) : requests;
	if (!blocks || !(blocks % STEP) || !depth || depth > DEPTH_MAX)
		errx(2, "no block, or not 1 to %d requests at once", DEPTH_MAX);

	fd = open(argv[2], (writes ? O_WRONLY : O_RDONLY) | O_DIRECT);
	if (fd < 0)
		err(1, "%s", argv[2]);
	if (posix_memalign((void **)&buf, 4096, depth * size))
		errx(1, "no memory");
	n = io_setup(depth, &ctx);
	if (n)
		errx(1, "io_setup: %s", strerror(-n));
	for (unsigned long i = 0; i < depth; i++)
		free_iocbs[i] = &iocbs[i];

	while (done < requests) {
		if (done >= unmarked)
			mark('b');
		while (started < requests && started - done < depth) {
			uint64_t place = at + started * STEP % blocks * size;
			char *data;

			io = free_iocbs[started - done];
			data = buf + (io - iocbs) * size;
			if (writes) {
				fill((uint64_t *)data, size, seed, place);
				io_prep_pwrite(io, fd, data, size, place);
			} else {
				io_prep_pread(io, fd, data, size, place);
			}
			n = io_submit(ctx, 1, &io);
			if (n != 1)
				errx(1, "io_submit: %s", strerror(-n));
			started++;
		}
		n = io_getevents(ctx, 1, depth, events, NULL);
		if (n < 0 && n != -EINTR)
			errx(1, "io_getevents: %s", strerror(-n));
		for (int i = 0; i < n; i++) {
			io = events[i].obj;
			if ((long)events[i].res < 0)
				errx(1, "at %lld: %s", io->u.c.offset,
				     strerror(-(int)events[i].res));
			if (events[i].res != size)
				errx(1, "at %lld: only %lu bytes", io->u.c.offset, events[i].res);
			if (verifies)
				check(io->u.c.buf, size, seed, io->u.c.offset);
			done++;
			free_iocbs[started - done] = io;
		}
	}
	if (unmarked < requests) {
		mark('e');
		mark('d');
	}
	return 0;
}
