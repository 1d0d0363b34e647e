// SPDX-License-Identifier: GPL-2.0-only
/*
 * Direct I/O on the pages that another domain granted, in dom0.
 *
 *   aio-demo ENGINE DISK WRITE-BLOCK READ-BLOCK
 *   aio-demo pins PROGRAM [ARGUMENT]...
 *
 * maps the grants of XEN_TEST_GRANTS (see gntdev_test.h), writes the pages to DISK
 * at WRITE-BLOCK, then reads as many blocks from READ-BLOCK on into the same pages.
 * It never looks at the bytes: only the disk and the guest do.  Prints one line of
 * name=value pairs, or exits with 77 if the kernel registers no such pages as
 * buffers. "pins" runs a program and prints how the pages that granted-alloc.so gave it
 * were pinned.
 *
 * How a page was pinned is observed, not inferred: a kprobe sees every call of
 * pin_user_pages_fast() on the mapping, another one each page which that call
 * had to hand on to the slow path. Linux 6.1 does direct I/O by
 * get_user_pages_fast(), and has another function for the slow path.
 */
#include "gntdev_test.h"

#include <err.h>

#define TRACEFS "/sys/kernel/tracing/"
/* A request: the most that one bio of the block layer holds. */
#define REQUEST (256 * PAGE)

static char *addr;
static size_t len;

/* Opening it truncated removes the trace, or the probes. */
static void tracefs_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		err(1, "%s", path);
	close(fd);
}

static void pins_watch(void)
{
	tracefs_write(TRACEFS "kprobe_events",
		      "p:kprobes/pin pin_user_pages_fast start=%di:x64 nr=%si:u32\n"
		      "p:kprobes/get get_user_pages_fast start=%di:x64 nr=%si:u32\n"
		      "p:kprobes/slow __gup_longterm_locked start=%si:x64 nr=%dx:u32\n"
		      "p:kprobes/slow_get get_user_pages_unlocked start=%di:x64 nr=%si:u32\n");
	tracefs_write(TRACEFS "trace", "\n");
	tracefs_write(TRACEFS "events/kprobes/enable", "1");
}

static void pins_unwatch(void)
{
	tracefs_write(TRACEFS "events/kprobes/enable", "0");
	tracefs_write(TRACEFS "kprobe_events", "\n");
}

/* Prints what was pinned of the mapping since the last call. */
static void print_pins(const char *what)
{
	FILE *f = fopen(TRACEFS "trace", "r");
	unsigned long all = 0, slow = 0, start;
	unsigned int nr;
	char line[512];

	if (!f)
		err(1, TRACEFS "trace");
	while (fgets(line, sizeof(line), f)) {
		const char *args = strstr(line, " start=");

		if (line[0] != '#' && strstr(line, "LOST"))
			errx(1, "the trace lost events: %s", line);
		if (line[0] == '#' || !args ||
		    sscanf(args, " start=%lx nr=%u", &start, &nr) != 2 ||
		    start < (uintptr_t)addr || start >= (uintptr_t)addr + len)
			continue;
		if (strstr(line, " pin: ") || strstr(line, " get: "))
			all += nr;
		else
			slow += nr;
	}
	fclose(f);
	tracefs_write(TRACEFS "trace", "\n");
	if (slow > all)
		errx(1, "%lu pages pinned slowly, of only %lu", slow, all);
	printf(" %s_fast=%lu %s_slow=%lu", what, all - slow, what, slow);
}

static int pins_of(char **program)
{
	int status;
	pid_t pid;

	/* The region of tools/xen/granted-alloc.c */
	addr = (char *)0x100000000000;
	len = 65536 * PAGE;
	pins_watch();
	pid = fork();
	if (!pid) {
		execvp(program[0], program);
		err(127, "%s", program[0]);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		err(1, "%s", program[0]);
	print_pins("pins");
	putchar('\n');
	pins_unwatch();
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char **argv)
{
	bool libaio, fixed;
	struct uring ring = { 0 };
	uint64_t index;
	int gntdev, disk;

	if (argc > 2 && !strcmp(argv[1], "pins"))
		return pins_of(argv + 2);
	libaio = argc == 5 && !strcmp(argv[1], "libaio");
	fixed = argc == 5 && !strcmp(argv[1], "io_uring-fixed");
	if (argc != 5 || (!libaio && !fixed && strcmp(argv[1], "io_uring")))
		errx(2, "usage: aio-demo ENGINE DISK WRITE-BLOCK READ-BLOCK");
	if (pool_init(0) || !grant_pool->n)
		errx(2, "XEN_TEST_GRANTS has no grants");
	disk = open(argv[2], O_RDWR | O_DIRECT);
	if (disk < 0)
		err(2, "%s", argv[2]);
	gntdev = gntdev_open();
	len = grant_pool->n * PAGE;
	if (gntdev_add(gntdev, grant_pool->domid, grant_pool->ref, grant_pool->n, &index))
		err(2, "IOCTL_GNTDEV_MAP_GRANT_REF of %d pages", grant_pool->n);
	addr = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, gntdev, index);
	if (addr == MAP_FAILED)
		err(2, "mmap of %d granted pages", grant_pool->n);
	if (!libaio && uring_open(&ring))
		err(1, "io_uring_setup");

	pins_watch();
	if (fixed && uring_register(&ring, addr, len)) {
		if (errno != EOPNOTSUPP)
			err(1, "IORING_REGISTER_BUFFERS");
		pins_unwatch();
		return 77;
	}
	printf("pages=%d engine=%s", grant_pool->n, argv[1]);
	print_pins("register");
	for (int write = 1; write >= 0; write--) {
		int op = fixed ? (write ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED) :
				 (write ? IORING_OP_WRITE : IORING_OP_READ);
		off_t where = atol(argv[write ? 3 : 4]) * PAGE;

		if (libaio)
			op = write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
		for (size_t done = 0; done < len; done += REQUEST) {
			size_t size = len - done < REQUEST ? len - done : REQUEST;
			long res = libaio ?
				aio_io(op, disk, addr + done, size, where + done) :
				uring_io(&ring, op, disk, addr + done, size, where + done);

			if (res != (long)size)
				errx(1, "%s of %zu bytes: %ld", write ? "write" : "read",
				     size, res);
		}
		print_pins(write ? "write" : "read");
	}
	putchar('\n');
	pins_unwatch();
	if (munmap(addr, len))
		err(1, "munmap");
	return 0;
}
