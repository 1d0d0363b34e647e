// SPDX-License-Identifier: GPL-2.0-only
/*
 * Direct I/O on the pages that another domain granted, in dom0.
 *
 *   aio-demo ENGINE DISK WRITE-BLOCK READ-BLOCK DOMID REF...
 *
 * maps the grants, writes the pages to DISK at WRITE-BLOCK, then reads as many
 * blocks from READ-BLOCK on into the same pages. It never looks at the bytes:
 * only the disk and the guest do. Prints one line of name=value pairs, or exits
 * with 77 if the kernel registers no such pages as buffers.
 *
 * How a page was pinned is observed, not inferred: a kprobe sees every call of
 * pin_user_pages_fast() on the mapping, another one each page which that call
 * had to hand on to the slow path. Linux 6.1 does direct I/O by
 * get_user_pages_fast(), and has another function for the slow path.
 */
#include "grant-map.h"
#include <libaio.h>
#include <liburing.h>
#include <stdbool.h>

#define TRACEFS "/sys/kernel/tracing/"
/* The most that one bio of the block layer holds. */
#define REQUEST_PAGES 256U
#define MAX_REQUESTS 64U

struct io {
	int disk;
	char *addr;
	size_t len;
	off_t where;
	bool write;
};

struct pins {
	unsigned long fast;
	unsigned long slow;
};

static void tracefs_write(const char *file, const char *text)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), TRACEFS "%s", file);
	fd = must_open(path, O_WRONLY | O_TRUNC);
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		err(1, "%s", path);
	close(fd);
}

static void pins_watch(void)
{
	tracefs_write("kprobe_events",
		      "p:kprobes/pin pin_user_pages_fast start=%di:x64 nr=%si:u32\n"
		      "p:kprobes/get get_user_pages_fast start=%di:x64 nr=%si:u32\n"
		      "p:kprobes/slow __gup_longterm_locked start=%si:x64 nr=%dx:u32\n"
		      "p:kprobes/slow_get get_user_pages_unlocked start=%di:x64 nr=%si:u32\n");
	tracefs_write("trace", "\n");
	tracefs_write("events/kprobes/enable", "1");
}

static void pins_unwatch(void)
{
	tracefs_write("events/kprobes/enable", "0");
	tracefs_write("kprobe_events", "\n");
}

/* What was pinned of the mapping since the last call. */
static struct pins pins_seen(const char *addr, size_t len)
{
	FILE *f = fopen(TRACEFS "trace", "r");
	unsigned long all = 0, slow = 0;
	char *line = NULL;
	size_t size = 0;

	if (!f)
		err(1, TRACEFS "trace");
	while (getline(&line, &size, f) > 0) {
		const char *args = strstr(line, " start=");
		unsigned long start;
		unsigned int nr;

		if (line[0] == '#')
			continue;
		if (strstr(line, "LOST"))
			errx(1, "the trace lost events: %s", line);
		if (!args || sscanf(args, " start=%lx nr=%u", &start, &nr) != 2)
			continue;
		if (start < (unsigned long)addr || start >= (unsigned long)addr + len)
			continue;
		if (strstr(line, " pin: ") || strstr(line, " get: "))
			all += nr;
		else
			slow += nr;
	}
	free(line);
	fclose(f);
	tracefs_write("trace", "\n");
	if (slow > all)
		errx(1, "%lu pages pinned slowly, of only %lu", slow, all);
	return (struct pins){ .fast = all - slow, .slow = slow };
}

/* A request of the I/O: what one bio holds, or what is left. */
struct request {
	char *addr;
	size_t len;
	off_t where;
};

static unsigned int requests_of(const struct io *io)
{
	return (io->len + REQUEST_PAGES * PAGE - 1) / (REQUEST_PAGES * PAGE);
}

static struct request request_of(const struct io *io, unsigned int i)
{
	size_t done = i * REQUEST_PAGES * PAGE, left = io->len - done;

	return (struct request){
		.addr = io->addr + done,
		.len = left < REQUEST_PAGES * PAGE ? left : REQUEST_PAGES * PAGE,
		.where = io->where + done,
	};
}

static void check_result(const struct io *io, unsigned int i, long res)
{
	size_t len = request_of(io, i).len;

	if (res != (long)len)
		errx(1, "%s of request %u: %ld instead of %zu bytes: %s",
		     io->write ? "write" : "read", i, res, len, strerror(res < 0 ? -res : 0));
}

static void do_libaio(const struct io *io)
{
	unsigned int n = requests_of(io);
	struct iocb cb[MAX_REQUESTS], *list[MAX_REQUESTS];
	struct timespec limit = { .tv_sec = 30 };
	struct io_event events[MAX_REQUESTS];
	io_context_t ctx = NULL;
	int ret;

	ret = io_setup(n, &ctx);
	if (ret)
		errx(1, "io_setup: %s", strerror(-ret));
	for (unsigned int i = 0; i < n; i++) {
		struct request r = request_of(io, i);

		(io->write ? io_prep_pwrite : io_prep_pread)(&cb[i], io->disk, r.addr, r.len,
							     r.where);
		list[i] = &cb[i];
	}
	ret = io_submit(ctx, n, list);
	if (ret != (int)n)
		errx(1, "io_submit of %u requests: %d", n, ret);
	ret = io_getevents(ctx, n, n, events, &limit);
	if (ret != (int)n)
		errx(1, "io_getevents: %d of %u within 30 s", ret, n);
	for (unsigned int i = 0; i < n; i++)
		check_result(io, events[i].obj - cb, (long)events[i].res);
	io_destroy(ctx);
}

static void do_io_uring(const struct io *io, struct io_uring *ring, bool fixed)
{
	int op = fixed ? (io->write ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED) :
			 (io->write ? IORING_OP_WRITE : IORING_OP_READ);
	unsigned int n = requests_of(io);
	int ret;

	for (unsigned int i = 0; i < n; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
		struct request r = request_of(io, i);

		io_uring_prep_rw(op, sqe, io->disk, r.addr, r.len, r.where);
		/* The only registered buffer. */
		sqe->buf_index = 0;
		io_uring_sqe_set_data64(sqe, i);
	}
	ret = io_uring_submit(ring);
	if (ret != (int)n)
		errx(1, "io_uring_submit of %u requests: %d", n, ret);
	for (unsigned int i = 0; i < n; i++) {
		struct __kernel_timespec limit = { .tv_sec = 30 };
		struct io_uring_cqe *cqe;

		ret = io_uring_wait_cqe_timeout(ring, &cqe, &limit);
		if (ret)
			errx(1, "io_uring_wait_cqe: %s", strerror(-ret));
		check_result(io, io_uring_cqe_get_data64(cqe), cqe->res);
		io_uring_cqe_seen(ring, cqe);
	}
}

int main(int argc, char **argv)
{
	struct pins registered = { 0 }, pins[2];
	struct io_uring ring;
	bool libaio, fixed;
	struct grants g;
	struct io io;
	int ret;

	if (argc < 7)
		errx(2, "usage: aio-demo ENGINE DISK WRITE-BLOCK READ-BLOCK DOMID REF...");
	libaio = !strcmp(argv[1], "libaio");
	fixed = !strcmp(argv[1], "io_uring-fixed");
	if (!libaio && !fixed && strcmp(argv[1], "io_uring"))
		errx(2, "unknown engine '%s': libaio, io_uring or io_uring-fixed", argv[1]);
	g = parse_grants(argv + 5);
	if (g.count > MAX_REQUESTS * REQUEST_PAGES)
		errx(2, "at most %u pages", MAX_REQUESTS * REQUEST_PAGES);
	io = (struct io){
		.disk = must_open(argv[2], O_RDWR | O_DIRECT),
		.addr = grants_map(&g, g.count),
		.len = g.count * PAGE,
	};

	pins_watch();
	if (!libaio) {
		ret = io_uring_queue_init(MAX_REQUESTS, &ring, 0);
		if (ret)
			errx(1, "io_uring_queue_init: %s", strerror(-ret));
	}
	if (fixed) {
		struct iovec vec = { .iov_base = io.addr, .iov_len = io.len };

		ret = io_uring_register_buffers(&ring, &vec, 1);
		if (ret == -EOPNOTSUPP) {
			pins_unwatch();
			return 77;
		}
		if (ret)
			errx(1, "io_uring_register_buffers: %s", strerror(-ret));
		registered = pins_seen(io.addr, io.len);
	}
	for (int i = 0; i < 2; i++) {
		io.write = i == 0;
		io.where = parse_u32(i ? "READ-BLOCK" : "WRITE-BLOCK", argv[3 + i]) * PAGE;
		if (libaio)
			do_libaio(&io);
		else
			do_io_uring(&io, &ring, fixed);
		pins[i] = pins_seen(io.addr, io.len);
	}
	if (!libaio)
		io_uring_queue_exit(&ring);
	pins_unwatch();
	if (munmap(io.addr, io.len))
		err(1, "munmap");

	printf("pages=%u engine=%s write_fast=%lu write_slow=%lu", g.count, argv[1],
	       pins[0].fast, pins[0].slow);
	printf(" read_fast=%lu read_slow=%lu register_fast=%lu register_slow=%lu\n",
	       pins[1].fast, pins[1].slow, registered.fast, registered.slow);
	return 0;
}
