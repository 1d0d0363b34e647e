// SPDX-License-Identifier: GPL-2.0-only
/*
 * blk-load DEVICE read|write KIB COUNT DEPTH: so many requests of that size, one after the
 * other on the device, DEPTH of them in flight
 */
#include <err.h>
#include <fcntl.h>
#include <libaio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_DEPTH 64

int main(int argc, char **argv)
{
	long size, count, depth, i, sent = 0, done = 0, got;
	struct iocb cbs[MAX_DEPTH], *cb;
	struct io_event events[MAX_DEPTH];
	io_context_t ctx = NULL;
	void *bufs[MAX_DEPTH];
	off_t end;
	int fd, write;

	if (argc != 6)
		errx(2, "usage: blk-load DEVICE read|write KIB COUNT DEPTH");
	write = !strcmp(argv[2], "write");
	size = atol(argv[3]) * 1024;
	count = atol(argv[4]);
	depth = atol(argv[5]);
	if (depth < 1 || depth > MAX_DEPTH || depth > count)
		errx(2, "DEPTH is 1 to %d, and at most COUNT", MAX_DEPTH);
	fd = open(argv[1], (write ? O_WRONLY : O_RDONLY) | O_DIRECT);
	end = lseek(fd, 0, SEEK_END) / size;
	if (fd < 0 || end < 1 || io_setup(depth, &ctx))
		err(1, "%s", argv[1]);
	for (i = 0; i < depth; i++)
		if (posix_memalign(&bufs[i], 4096, size) || !memset(bufs[i], 1, size))
			errx(1, "memory");

	/* A request's number is where its buffer is. */
	for (i = 0; done < count; i++) {
		if (i < depth) {
			cb = &cbs[i];
			cb->data = (void *)i;
		} else {
			got = io_getevents(ctx, 1, 1, events, NULL);
			if (got != 1 || events[0].res != (unsigned long)size)
				errx(1, "request: %ld", got == 1 ? (long)events[0].res : got);
			done++;
			cb = events[0].obj;
		}
		if (sent == count)
			continue;
		got = (long)cb->data;
		if (write)
			io_prep_pwrite(cb, fd, bufs[got], size, sent % end * size);
		else
			io_prep_pread(cb, fd, bufs[got], size, sent % end * size);
		cb->data = (void *)got;
		if (io_submit(ctx, 1, &cb) != 1)
			errx(1, "io_submit");
		sent++;
	}
	return 0;
}
